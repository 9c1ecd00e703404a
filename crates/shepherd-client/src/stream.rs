//! Opening answers that are read as they come.

use reqwest::Method;

use crate::answer::{Answer, Lost};
use crate::client::pause;
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
        let trouble = match client.request(Method::GET, path, query).send().await {
            Ok(response) => match response.status().as_u16() {
                200 => return Ok(Some(response)),
                204 => return Ok(None),
                status => match response.bytes().await {
                    Ok(body) => {
                        let answer = Answer { status, body };
                        if !answer.try_again() {
                            return Err(refused(&answer));
                        }
                        answer.message()
                    }
                    Err(error) => client.out_of_reach(&Lost::new(error)),
                },
            },
            Err(error) => client.out_of_reach(&Lost::new(error)),
        };
        pause(patience, trouble).await?;
    }
}
