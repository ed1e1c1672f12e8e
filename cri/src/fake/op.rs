//! [`Op`]: the calls that can be counted and made to fail.

use crate::error::CriError;

macro_rules! ops {
    ($($op:ident)*) => {
        /// A call to the runtime, by CRI's name of the method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "CRI's own names")]
        pub enum Op { $($op,)* }

        impl Op {
            /// CRI's name of the method.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$op => stringify!($op),)* }
            }
        }
    };
}

ops! {
    Version Status RuntimeConfig UpdateRuntimeConfig
    RunPodSandbox StopPodSandbox RemovePodSandbox PodSandboxStatus ListPodSandbox
    CreateContainer StartContainer StopContainer RemoveContainer ContainerStatus ListContainers
    UpdateContainerResources ReopenContainerLog ExecSync Exec Attach PortForward
    ListContainerStats GetContainerEvents
    ListImages ImageStatus PullImage RemoveImage ImageFsInfo
}

/// An error as the runtime reports failures of its own, for [`super::FakeRuntime::fail_next`].
pub fn runtime_error(op: Op, message: &str) -> CriError {
    CriError::Runtime { op: op.as_str(), object: String::new(), message: message.to_owned() }
}

/// The error of a runtime that is gone.
pub fn unavailable(op: Op) -> CriError {
    CriError::Unavailable { op: op.as_str(), object: String::new(), message: "connection refused".to_owned() }
}
