//! What an image says about the program that it was made for.

/// Values that a workspace takes from its image where its document says nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// The environment, `NAME=value`.
    pub env: Vec<String>,
    /// The program with its arguments: the image's entry point, and behind it the image's command.
    pub command: Vec<String>,
    /// The working directory; none is `/`.
    pub cwd: Option<String>,
    /// `USER[:GROUP]` by names of the image's own files or by numbers; none is root.
    pub user: Option<String>,
}
