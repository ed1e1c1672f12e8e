//! Images: present before a container starts. When they go is [`crate::retention`]'s business.

pub mod credentials;
pub mod name;
pub mod pull;

pub use pull::{EnsuredImage, ImagePuller, PullError};
