//! Opening answers that are read as they come.

use reqwest::Method;

use crate::answer::Answer;
use crate::client::{heard, pause};
use crate::patience::Patience;
use crate::{Client, Error, Result};

/// Opens an answer, as often as patience allows; none where the shepherd says that nothing will come. `refused` says
/// what an answer means that is no success.
pub(crate) async fn open(
    client: &Client,
    path: &str,
    query: &[(&str, &str)],
    patience: &mut Patience,
    refused: impl Fn(&Answer) -> Error,
) -> Result<Option<reqwest::Response>> {
    loop {
        let silence = patience.silence();
        let trouble = match heard(silence, client.request(Method::GET, path, query).send()).await {
            Ok(response) => match response.status().as_u16() {
                200 => return Ok(Some(response)),
                204 => return Ok(None),
                status => match heard(silence, response.bytes()).await {
                    Ok(body) => {
                        let answer = Answer { status, body };
                        if !answer.try_again() {
                            return Err(refused(&answer));
                        }
                        answer.message().into()
                    }
                    Err(lost) => client.out_of_reach(&lost),
                },
            },
            Err(lost) => client.out_of_reach(&lost),
        };
        pause(patience, trouble).await?;
    }
}
