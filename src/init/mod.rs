//! Does the steps of a plan, in the child that becomes the workspace.
