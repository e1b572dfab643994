//! The commands that ask something of a control plane, by its HTTP API.
//!
//! Results go to stdout, as tables for people or as the API's own JSON; everything else goes to stderr.

mod answer;
mod api;
mod apps;
pub(crate) mod demo;
mod environment;
mod locate;
mod logs;
mod operation;
mod password;
mod policy;
mod show;
mod status;
mod stream;

use crate::cli::{AppCommand, ClientCommand, EnvironmentCommand};
use crate::failure::{Exit, Failure};
use api::Api;

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Tables and lines, for people.
    Text,
    /// What the API answered, for scripts.
    Json,
}

/// Does one command.
pub fn run(command: ClientCommand) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Software, "cannot start").because(&error))?;
    runtime.block_on(dispatch(command))
}

async fn dispatch(command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::App { api, command: AppCommand::Create { name } } => apps::create(&Api::new(&api)?, &name).await,
        ClientCommand::App { api, command: AppCommand::List } => apps::list(&Api::new(&api)?).await,
        ClientCommand::App { api, command: AppCommand::Delete { name } } => apps::delete(&Api::new(&api)?, &name).await,
        ClientCommand::Deploy(target) => operation::run(operation::Verb::Deploy, &target).await,
        ClientCommand::Sleep(target) => operation::run(operation::Verb::Sleep, &target).await,
        ClientCommand::Wake(target) => operation::run(operation::Verb::Wake, &target).await,
        ClientCommand::Status { name, api } => status::run(&Api::new(&api)?, name.as_ref()).await,
        ClientCommand::Logs { target, follow, tail } => {
            let until = if follow { logs::Until::Stopped } else { logs::Until::LastLine };
            logs::run(&target, until, tail).await
        }
        ClientCommand::Environment { command: EnvironmentCommand::Set(change) } => environment::set(&change).await,
        ClientCommand::Environment { command: EnvironmentCommand::Policy(args) } => policy::run(&args).await,
    }
}
