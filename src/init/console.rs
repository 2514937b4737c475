//! Gives the program a terminal, and its master to whoever asked for it.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::Doing;
use super::report::Reason;
use super::report::Trouble;
use crate::defence::Defence;
use crate::plan::step::Console;
use crate::sys::Errno;
use crate::sys::mount;
use crate::sys::path;

/// What `statfs(2)` says of a `devpts`.
const DEVPTS_MAGIC: i64 = 0x1cd1;

impl Doing {
    /// Opens a pseudo terminal of the root's own `devpts`, sends the master away and makes the slave the
    /// controlling terminal, standard input, output and error.
    ///
    /// The slave is had from the master by `TIOCGPTPEER`, never by its name: the name could lead to another.
    pub(super) fn open_console(&mut self, wanted: Console) -> std::result::Result<(), Trouble> {
        let requester = self
            .outfit
            .console
            .take()
            .ok_or(Trouble::because(Reason::Order, Errno::NOTTY))?;
        let master = self.open_master()?;
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        if wanted.rows != 0 || wanted.columns != 0 {
            let size = Winsize {
                ws_row: wanted.rows,
                ws_col: wanted.columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(&slave, size)?;
        }
        let owner = rustix::fs::Uid::from_raw(wanted.uid);
        rustix::fs::fchown(&slave, Some(owner), None)?;
        if wanted.mount {
            self.show_console(&slave)?;
        }
        send_master(&requester, &master)?;
        rustix::process::ioctl_tiocsctty(&slave)?;
        for standard in [
            rustix::stdio::dup2_stdin,
            rustix::stdio::dup2_stdout,
            rustix::stdio::dup2_stderr,
        ] {
            standard(&slave)?;
        }
        Ok(())
    }

    fn open_master(&self) -> std::result::Result<OwnedFd, Trouble> {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let multiplexer = Path::new("/dev/pts/ptmx");
        let master = match &self.root {
            Some(root) => path::open_in(root, multiplexer, flags)?,
            None => {
                // host path: the root itself.
                let root = rustix::fs::open(
                    "/",
                    OFlags::PATH | OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )?;
                path::open_in(&root, multiplexer, flags)?
            }
        };
        let genuine = path::is_device(master.as_fd(), 5, 2)?
            && rustix::fs::fstatfs(&master)?.f_type == DEVPTS_MAGIC;
        if !genuine && !Defence::Multiplexer.is_out() {
            return Err(Trouble::because(Reason::WrongDevice, Errno::NOTTY));
        }
        rustix::pty::unlockpt(&master)?;
        Ok(master)
    }

    /// Mounts the slave on `/dev/console`: a file of the root itself, not what a link there leads to.
    fn show_console(&self, slave: &OwnedFd) -> std::result::Result<(), Trouble> {
        let root = self.root()?;
        let console = Path::new("/dev/console");
        path::make_file(root, console)?;
        let flags = match Defence::ConsoleLink.is_out() {
            true => OFlags::PATH,
            false => OFlags::PATH | OFlags::NOFOLLOW,
        };
        let place = path::open_in(root, console, flags)?;
        if path::is_kind(place.as_fd(), rustix::fs::FileType::Symlink)? {
            return Err(Trouble::because(Reason::WrongDevice, Errno::LOOP));
        }
        let cover = mount::copy_tree(slave, false)?;
        Ok(mount::attach(&cover, &place)?)
    }
}

/// Sends the master with the name of what it is, as the callers' console sockets expect it.
fn send_master(to: &OwnedFd, master: &OwnedFd) -> std::result::Result<(), Trouble> {
    let descriptors = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let text = [std::io::IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(to, &text, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
