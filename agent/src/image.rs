//! Images: present before a container starts, removed when disks fill up.

pub mod credentials;
pub mod gc;
pub mod name;
pub mod pull;

pub use pull::{EnsuredImage, ImagePuller, PullError};
