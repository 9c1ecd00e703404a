//! `docker: {host?, ca_file?, cert_file?, key_file?, prefetch?, image_budget?}`: the
//! engine that runs containers, and its images.
//!
//! | key | |
//! |---|---|
//! | `host` | [`host`]; `unix:///PATH`, `tcp://HOST:PORT`, `http://` or `https://` |
//! | `ca_file`, `cert_file`, `key_file` | PEM files for TLS: all three or none |
//! | `prefetch` | list of `NAME:VERSION`, whose images are pulled ahead |
//! | `image_budget` | size that pulled images may take; without it none is removed |

use shepherd_job::ModelRef;

use crate::paths::Located;
use crate::read::{Context, Section, Value};

pub(crate) mod host;

use host::DockerHost;

/// The engine that runs containers, and its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// Where it listens.
    pub host: DockerHost,
    /// The models whose images are pulled ahead.
    pub prefetch: Vec<ModelRef>,
    /// How many bytes the images that were pulled may take; none is removed when
    /// absent.
    pub image_budget: Option<u64>,
}

/// Reads the section. With a docker sheep there is an engine, be there a section or
/// not.
pub(super) fn read(
    cx: &Context,
    top: &Section<'_>,
    docker_sheep: bool,
    kept: &mut Vec<Located>,
) -> Option<Option<DockerConfig>> {
    let section = match top.get("docker") {
        None if !docker_sheep => return Some(None),
        None => None,
        Some(value) => Some(value.section()?),
    };
    let host = host::read(cx, top, section.as_ref(), kept);
    let Some(section) = section else {
        return Some(Some(DockerConfig { host: host?, prefetch: Vec::new(), image_budget: None }));
    };
    let prefetch = section.value_or("prefetch", Vec::new(), |value| {
        value.list(model).and_then(|models| value.each_once(models, "model"))
    });
    let image_budget = section.optional("image_budget", |value| value.size(1..=i64::MAX as u64));
    section.finish(&[]);
    Some(Some(DockerConfig { host: host?, prefetch: prefetch?, image_budget: image_budget? }))
}

fn model(value: &Value<'_>) -> Option<ModelRef> {
    let text = value.text()?;
    let (name, version) = text.split_once(':').unwrap_or((text, ""));
    match ModelRef::parse(name, version) {
        Ok(model) => Some(model),
        Err(rule) => {
            value.wrong(&format!("NAME:VERSION of a model, without the registry; its {rule}"));
            None
        }
    }
}
