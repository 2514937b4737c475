//! Images as podman and skopeo write them, unpacked and verified.
