//! Serving the API on a listener.

use std::future::Future;

use shepherd_serve::{Drained, ServeOptions};
use tokio::net::TcpListener;

use crate::api::Api;
use crate::backend::Backend;
use crate::json;

/// Serves `api` on `listener` until `shutdown` is ready, then drains: accepts no
/// more, lets requests in progress finish, answers `wait_ready` with 503, and
/// closes each connection after its answer.
///
/// An API that was drained stays so: to serve again, make another.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    api: Api<B>,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let drain = api.drain().clone();
    let options = ServeOptions { refusal: json::refusal, ..options };
    shepherd_serve::serve(listener, api, drain, options, shutdown).await
}
