//! A directory that is served, and the server of it.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use bulkhead::backend::microvm::files;
use bulkhead::backend::microvm::files::Order;
use bulkhead::backend::microvm::files::Server;
use bulkhead::plan::share::Share;
use bulkhead::plan::share::Source;
use bulkhead::plan::step::Attributes;
use bulkhead::plan::step::Bind;
use bulkhead::sys::clone::Birth;
use bulkhead::sys::process;

use crate::support::wall;

use super::client::Client;
use super::driver::Driver;

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

/// A directory beside which nothing may be touched, and one that is served.
pub(super) struct Place {
    directory: tempfile::TempDir,
}

/// A server and the one guest that it has; it ends with this value.
pub(super) struct Served {
    pub(super) client: Client,
    pub(super) server: Server,
}

impl Drop for Served {
    fn drop(&mut self) {
        process::end(self.server.process.as_fd());
    }
}

impl Place {
    /// A place with one directory, `shared`, that is empty, and a file beside it.
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("shared")).unwrap();
        std::fs::write(directory.path().join("secret"), "outside").unwrap();
        Self { directory }
    }

    /// A path below the directory that is served.
    pub(super) fn shared(&self, name: &str) -> PathBuf {
        self.directory.path().join("shared").join(name)
    }

    /// A path beside the directory that is served.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The share that is the directory, as the root of a guest.
    pub(super) fn share(&self) -> Share {
        tree("root", &self.shared(""))
    }

    /// Starts a server of these shares.
    pub(super) fn launch(&self, shares: &[Share]) -> Server {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.directory.path(), flags, Mode::empty()).unwrap();
        let program = std::ffi::CString::new(wall::built().into_os_string().into_vec()).unwrap();
        files::launch(&Order {
            program: &program,
            shares,
            birth: Birth::default(),
            users: None,
            directory: directory.as_fd(),
        })
        .unwrap()
    }

    /// Serves these shares to a guest.
    pub(super) fn serve(&self, shares: &[Share]) -> Served {
        let server = self.launch(shares);
        server.ready().unwrap();
        let connection = server.socket.try_clone().unwrap();
        let client = Client::new(Driver::new(connection));
        Served { client, server }
    }

    /// Serves the directory as it is.
    pub(super) fn serve_root(&self) -> Served {
        self.serve(&[self.share()])
    }
}

/// A share of the tree at a path.
pub(super) fn tree(name: &str, source: &Path) -> Share {
    with(name, source, |_| {})
}

/// A share of the tree at a path that may only be read.
pub(super) fn read_only(name: &str, source: &Path) -> Share {
    with(name, source, |bind| {
        bind.attributes = Attributes {
            set_below: READ_ONLY,
            ..Attributes::default()
        };
    })
}

/// A share with what else was asked for.
pub(super) fn with(name: &str, source: &Path, change: impl FnOnce(&mut Bind)) -> Share {
    let mut bind = Bind {
        source: source.to_owned(),
        recursive: true,
        follow: true,
        ..Bind::default()
    };
    change(&mut bind);
    Share {
        name: name.to_owned(),
        source: Source::Tree(Box::new(bind)),
    }
}
