//! SPDY/3.1 as container runtimes and older clients speak it: a pure frame codec.
//!
//! Owns framing and header compression. It knows nothing of exec, attach or
//! port-forward, opens no socket and applies no flow control: the peers of this
//! protocol (containerd's and CRI-O's streaming servers, client-go) ignore
//! WINDOW_UPDATE and rely on TCP.

pub mod dictionary;
pub mod frame;
pub mod headers;

pub use frame::{Frame, FrameDecoder, FrameEncoder, FrameError, StreamId};
pub use headers::Headers;
