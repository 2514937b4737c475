//! The defences of the walls by name, so that a build for tests can take out one of them and see a test fail.
//!
//! In every other build [`Defence::is_out`] is the constant `false`, and what a defence keeps from happening is not
//! compiled in. The feature `mutations` makes it a question to the environment; a build that is meant for use refuses that
//! feature. `make test-mutations` takes each out in turn.

#[cfg(all(feature = "mutations", not(debug_assertions)))]
compile_error!("the feature `mutations` takes defences out: it is for tests, never for a release");

macro_rules! defences {
    ($($(#[doc = $what:literal])+ $defence:ident = $name:literal,)+) => {
        /// One defence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Defence {
            $($(#[doc = $what])+ $defence,)+
        }

        impl Defence {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$defence),+];

            /// What it is called where it is taken out.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$defence => $name,)+
                }
            }

            /// What it does.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$defence => concat!($($what),+),)+
                }
            }
        }
    };
}

defences! {
    /// Paths below a root are resolved inside it (`openat2(2)`, `RESOLVE_IN_ROOT`).
    RootResolution = "root-resolution",
    /// No magic link of `/proc` is followed from a working directory on.
    MagicLinks = "magic-links",
    /// A path below a private `proc` must not cross a mount.
    OneMount = "one-mount",
    /// Missing directories are made one in the other, by descriptor.
    DirectoriesByDescriptor = "directories-by-descriptor",
    /// A missing file is made where nothing was, through no link.
    ExclusiveFile = "exclusive-file",
    /// A mount goes on the descriptor that was opened and looked at.
    TargetByDescriptor = "target-by-descriptor",
    /// What fills a new file system is copied through no link.
    CopyThroughNoLink = "copy-through-no-link",
    /// A tree is removed through no link.
    RemoveThroughNoLink = "remove-through-no-link",
    /// A small file of an image is looked at before it is opened.
    LookBeforeOpen = "look-before-open",
    /// A small file of an image is read up to a limit.
    SmallFile = "small-file",
    /// `proc` and `sysfs` are mounted on ordinary directories.
    OrdinaryDirectory = "ordinary-directory",
    /// Nothing is mounted over files of `/proc`.
    InsideProc = "inside-proc",
    /// `/dev/null` is seen to be the null device before it covers anything.
    NullDevice = "null-device",
    /// A device that is there already is seen to be the one that was asked for.
    DeviceIdentity = "device-identity",
    /// Terminals come from a multiplexer that was seen to be one.
    Multiplexer = "multiplexer",
    /// `/dev/console` is covered itself, not what a link there leads to.
    ConsoleLink = "console-link",
    /// Masked paths are covered.
    Masked = "masked",
    /// Paths that are to be read-only are.
    Readonly = "readonly",
    /// The mounts of the host do not hear of those inside.
    Propagation = "propagation",
    /// The working directory is seen to be inside the root.
    WorkingDirectory = "working-directory",
    /// A process of the runtime is not to be looked into from inside.
    Hidden = "hidden",
    /// The runtime's own file is out of reach of what it starts.
    Sealed = "sealed",
    /// Descriptors that the program is not meant to have are closed.
    Descriptors = "descriptors",
    /// The program leads a session of its own.
    Session = "session",
    /// Keys of the caller are not the program's.
    Keyring = "keyring",
    /// Groups of the caller are not the program's.
    Groups = "groups",
    /// Capabilities are not inheritable unless asked for.
    Inheritable = "inheritable",
    /// Capabilities that were not asked for are out of reach for good.
    Bounding = "bounding",
    /// No program gains rights by `execve(2)`.
    NoNewPrivileges = "no-new-privileges",
    /// The system call filter is loaded.
    Seccomp = "seccomp",
    /// Devices that were not allowed cannot be opened.
    DeviceFilter = "device-filter",
    /// Files that are standard streams keep their owners.
    StreamOwner = "stream-owner",
    /// An `exec` goes into the workspace's own cgroup, or one below.
    CgroupBelow = "cgroup-below",
    /// A cgroup's path does not lead up.
    CgroupPath = "cgroup-path",
    /// The name of a workspace is a word.
    Name = "name",
    /// A user is a number that was read to its end.
    UserNumber = "user-number",
    /// What is kept of workspaces is for its owner only.
    StateMode = "state-mode",
    /// A network is reached from another, or from outside, by what is published alone.
    NetworksClosed = "networks-closed",
    /// A workspace does not reach what listens on the host's loopback.
    HostLoopback = "host-loopback",
    /// A workspace does not reach link-local addresses beyond the host.
    LinkLocal = "link-local",
    /// What a workspace sends comes from its own addresses.
    OwnSource = "own-source",
}

impl Defence {
    /// Whether it has been taken out: never.
    #[cfg(not(feature = "mutations"))]
    #[inline(always)]
    #[must_use]
    pub const fn is_out(self) -> bool {
        false
    }

    /// Whether `BULKHEAD_WITHOUT` names it.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn is_out(self) -> bool {
        std::env::var_os("BULKHEAD_WITHOUT").is_some_and(|name| name == self.name())
    }
}
