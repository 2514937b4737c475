//! Where the layers below the command line leave remarks, without knowing what becomes of them.

/// Takes remarks that are no errors.
pub trait Report {
    /// Something was ignored or survived.
    fn warning(&self, text: &str);
    /// Something for those who look inside; `text` is made only when somebody does.
    fn debug(&self, text: &dyn Fn() -> String);
}
