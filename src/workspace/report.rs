//! Where the layers below the command line leave remarks, and who is told when counting begins and ends, without knowing
//! what becomes of either.

use crate::enclosure::Enclosure;
use crate::enclosure::counters::machine::MachineCounters;
use crate::sys::process::Exit;
use crate::workspace::interfaces::Interface;
use crate::workspace::record::Record;
use crate::workspace::store::Home;

/// Takes remarks that are no errors.
pub trait Report {
    /// Something was ignored or survived.
    fn warning(&self, text: &str);
    /// Something for those who look inside; `text` is made only when somebody does.
    fn debug(&self, text: &dyn Fn() -> String);
    /// The program of a workspace runs; its lease begins.
    fn started(&self, _record: &Record) {}
    /// A workspace that is billed was made: what it uses is counted from here on.
    fn begun(&self, first: &Counted<'_>);
    /// The counters of a workspace that is billed are about to be lost: its processes are gone, and its cgroup goes
    /// next.
    fn ending(&self, last: &Counted<'_>, end: End);
}

/// A workspace whose counters can be read.
#[derive(Debug)]
pub struct Counted<'a> {
    /// Its record.
    pub record: &'a Record,
    /// Its directory in the store.
    pub home: &'a Home,
    /// Its cgroup.
    pub enclosure: &'a Enclosure,
    /// Its interfaces while they were last there; none when it has no network of its own, or that was gone before.
    pub interfaces: Option<Vec<Interface>>,
    /// What its machine had cost while it was last there; none without one.
    pub machine: Option<MachineCounters>,
}

/// How a workspace came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its program ran when it was removed.
    Removed,
    /// Its program had ended before; how, where somebody saw it.
    Before(Option<Exit>),
}
