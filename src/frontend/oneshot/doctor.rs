//! `node doctor`: what the running node finds; without one, what can be seen of its folder from outside.

use std::path::Path;

use super::client::Client;
use crate::api::{ApiError, ErrorCode, Finding, Reply, Severity};
use crate::frontend::render::text::Text;
use crate::frontend::{complain, render};

/// Print the findings of the running node, else those of `outside`; the exit status. 0 also with warnings, 1 when something
/// does not work.
pub async fn doctor(socket: &Path, json: bool, color: bool, outside: impl FnOnce() -> Vec<Finding>) -> u8 {
    let findings = match ask(socket, json).await {
        Ok(findings) => findings,
        Err(error) if error.code == ErrorCode::NotRunning => outside(),
        Err(error) => {
            complain(&error);
            return error.code.exit_status();
        }
    };
    let failed = findings.iter().any(|found| found.severity == Severity::Error);
    if json {
        println!("{}", render::json::data(&findings));
    } else if let Some(text) = Text::new(color).reply("doctor", &Reply::Doctor(findings)) {
        println!("{text}");
    }
    u8::from(failed)
}

async fn ask(socket: &Path, json: bool) -> Result<Vec<Finding>, ApiError> {
    let mut client = Client::connect(socket).await?;
    let (_, reply) = client.ask("doctor", json).await?;
    serde_json::from_value(reply["data"].clone())
        .map_err(|_| ApiError::new(ErrorCode::General, "the running node gave no findings; is it of another version?"))
}
