//! Who is to blame for a container that the engine refuses: the image, or all the rest.
//!
//! The engine's words for what an image can do wrong are without number: a working directory
//! that is a file, a volume over `/`, one that no disk holds, a file where a directory is to
//! be mounted. So the same container is made and started of an empty image, in which nothing
//! can run: its init process ends at once. Where the engine refuses that one, too, the sheep
//! or the machine is to blame; where it does not, the image is.

use bollard::models::ContainerCreateBody;

use super::container::Container;
use super::engine::{Engine, Trouble};
use super::{chown_container, sweep};

/// Makes and starts what `body` describes of an empty image, under this name, and removes it.
///
/// # Errors
/// When the engine does not do it.
pub(super) async fn of_empty_image(
    engine: &Engine,
    name: String,
    body: ContainerCreateBody,
) -> Result<(), Trouble> {
    let mut container = Container::known(engine, name);
    let body = ContainerCreateBody {
        entrypoint: Some(vec!["-".to_owned()]),
        cmd: None,
        // It has no file to find a name in.
        user: None,
        ..body
    };
    let tried = async {
        chown_container::create(&mut container, body).await?;
        container.start().await
    };
    let tried = tried.await;
    if let Err(trouble) = sweep::remove(&container).await {
        let container = container.key();
        tracing::debug!(container, %trouble, "a container of a trial stays until the next launch");
    }
    tried
}
