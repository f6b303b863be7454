//! How what the node says is shown: as lines of JSON for programs, as text for people.

pub(crate) mod json;
pub(crate) mod safe;
pub(crate) mod table;
pub(crate) mod text;
