//! Images: present before a container starts. When they go is [`crate::retention`]'s business.

pub mod access;
pub mod credentials;
pub mod name;
pub mod pull;
pub mod records;

pub use pull::{EnsuredImage, ImagePuller, PullError};
