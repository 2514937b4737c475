//! The whole of a workspace's life, as one match without side effects: those who act ask it first.

use crate::spec::state::Status;

/// Something that happens to a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All is made.
    Built,
    /// The program is let go.
    Start,
    /// All its processes are frozen.
    Pause,
    /// They are let go on.
    Resume,
    /// One more program comes in.
    Enter,
    /// Somebody inside is asked for something.
    Ask,
    /// Its processes are saved to files.
    Save,
    /// Its first process has ended.
    Exit,
}

/// An event does not fit the state of a workspace. The words are those by which callers tell what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotNow {
    /// Where it stands.
    pub state: Status,
    /// What was to happen.
    pub event: Event,
}

/// The state after `event`.
///
/// # Errors
///
/// [`NotNow`] when the event cannot happen in that state.
pub fn after(state: Status, event: Event) -> Result<Status, NotNow> {
    match (state, event) {
        (Status::Creating, Event::Built) => Ok(Status::Created),
        (Status::Created, Event::Start) | (Status::Paused, Event::Resume) => Ok(Status::Running),
        (Status::Created | Status::Running, Event::Pause) => Ok(Status::Paused),
        (Status::Creating | Status::Created | Status::Running | Status::Paused, Event::Exit) => {
            Ok(Status::Stopped)
        }
        (Status::Created | Status::Running, Event::Enter | Event::Ask)
        | (Status::Running | Status::Paused, Event::Save) => Ok(state),
        (state, event) => Err(NotNow { state, event }),
    }
}

impl std::error::Error for NotNow {}

impl std::fmt::Display for NotNow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.state, self.event) {
            (Status::Stopped, Event::Start) => {
                f.write_str("cannot start a container that has stopped")
            }
            (Status::Running | Status::Paused, Event::Start) => {
                f.write_str("cannot start an already running container")
            }
            (Status::Paused, Event::Enter) => {
                f.write_str("cannot exec in a paused container (use --ignore-paused to override)")
            }
            (Status::Paused, Event::Ask) => {
                f.write_str("container paused: nobody inside answers before it is resumed")
            }
            (state, Event::Save) => {
                write!(f, "container cannot be checkpointed in {state} state")
            }
            (Status::Paused, Event::Pause) => f.write_str("container paused"),
            (Status::Stopped, _) => f.write_str("container not running: it has stopped"),
            (_, Event::Resume) => f.write_str("container not paused"),
            (Status::Creating, _) => f.write_str("container is still being created"),
            (state, event) => write!(f, "container is {state}, which does not allow {event:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 8] = [
        Event::Save,
        Event::Ask,
        Event::Enter,
        Event::Built,
        Event::Start,
        Event::Pause,
        Event::Resume,
        Event::Exit,
    ];

    #[test]
    fn a_stopped_workspace_accepts_nothing() {
        for event in EVENTS {
            let refused = NotNow {
                state: Status::Stopped,
                event,
            };
            assert_eq!(after(Status::Stopped, event), Err(refused));
        }
    }

    #[test]
    fn an_ordinary_life_goes_from_creating_to_stopped() {
        let mut state = Status::Creating;
        for event in [
            Event::Built,
            Event::Start,
            Event::Pause,
            Event::Resume,
            Event::Exit,
        ] {
            state = after(state, event).unwrap();
        }
        assert_eq!(state, Status::Stopped);
    }

    #[test]
    fn refusals_use_the_words_that_callers_look_for() {
        let text = |state, event| after(state, event).unwrap_err().to_string();
        assert!(text(Status::Stopped, Event::Exit).contains("container not running"));
        assert!(text(Status::Running, Event::Resume).contains("container not paused"));
        assert!(text(Status::Running, Event::Start).contains("already running"));
        assert!(text(Status::Paused, Event::Ask).contains("container paused"));
    }
}
