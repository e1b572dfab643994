//! Joins the control plane and the proxy in one process.

use crate::config::UpConfig;
use crate::failure::{Exit, Failure};

/// Runs both halves until it is told to stop.
pub fn run_up(config: UpConfig) -> Result<(), Failure> {
    let what = format!("cannot serve {} yet", config.zone);
    Err(Failure::new(Exit::Unavailable, what).hint("the halves are not joined yet"))
}
