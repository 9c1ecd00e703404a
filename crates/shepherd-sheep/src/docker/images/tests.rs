//! Against a real engine and real registries; each test has registries of its own,
//! and so names that nobody else has.

mod budget;
mod engines;
mod pulls;
mod refusals;
mod relay;
mod site;
