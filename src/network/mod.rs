//! The network of a workspace: bridge, veth pair, addresses, shaping, published ports; made and undone by name.
