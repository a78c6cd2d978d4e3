//! The subcommands of `feed-sim` that are more than their arguments, one a file.

pub(crate) mod cert;
pub(crate) mod facts;
pub(crate) mod record;
pub(crate) mod scenarios;
pub(crate) mod serve;
