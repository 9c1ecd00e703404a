//! What docker sheep need: an engine, a registry, and images made from nothing.
//!
//! The engine is looked at and disturbed with Docker's own command line, so that what
//! the daemon believes of it is held against another's view.

mod engine;
mod image;
mod registry;

pub use engine::Engine;
pub(crate) use engine::remove_left_over;
pub use image::{Image, Recipe};
pub use registry::{PASSWORD, Registry, USER};
