//! The part of the Container Runtime Interface that two pods take (k8s.io/cri-api, runtime/v1/api.proto), spoken to a
//! containerd.

use anyhow::{Context as _, Result};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use std::{collections::HashMap, io, path::Path};
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Defines messages: a line for each member, with its number.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $member:ident: $type:ty,)* })*) => {
        $($(#[$doc])* #[derive(Clone, PartialEq, prost::Message)] pub(crate) struct $name {
            $($(#[$attribute])* pub(crate) $member: $type,)*
        })*
    };
}

messages! {
    PodMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
    }
    NamespaceOption {
        #[prost(int32, tag = "1")] network: i32,
        #[prost(int32, tag = "2")] pid: i32,
        #[prost(int32, tag = "3")] ipc: i32,
    }
    PodSecurity {
        #[prost(message, optional, tag = "1")] namespaces: Option<NamespaceOption>,
    }
    LinuxPod {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security: Option<PodSecurity>,
    }
    PodConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodMetadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(map = "string, string", tag = "6")] labels: HashMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPod>,
    }
    RunPod {
        #[prost(message, optional, tag = "1")] config: Option<PodConfig>,
    }
    /// Requests and answers that are an id and nothing else.
    Id {
        #[prost(string, tag = "1")] id: String,
    }
    PodNetwork {
        #[prost(string, tag = "1")] ip: String,
    }
    PodStatus {
        #[prost(message, optional, tag = "5")] network: Option<PodNetwork>,
    }
    PodStatusAnswer {
        #[prost(message, optional, tag = "1")] status: Option<PodStatus>,
    }
    ContainerMetadata {
        #[prost(string, tag = "1")] name: String,
    }
    Image {
        #[prost(string, tag = "1")] image: String,
    }
    Mount {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(bool, tag = "3")] readonly: bool,
    }
    Capabilities {
        #[prost(string, repeated, tag = "1")] add: Vec<String>,
        #[prost(string, repeated, tag = "2")] drop: Vec<String>,
    }
    ContainerSecurity {
        #[prost(message, optional, tag = "1")] capabilities: Option<Capabilities>,
        #[prost(message, optional, tag = "3")] namespaces: Option<NamespaceOption>,
        #[prost(bool, tag = "7")] readonly_root: bool,
        #[prost(bool, tag = "11")] no_new_privs: bool,
        // Of which the default, 0, is the runtime's own.
        #[prost(message, optional, tag = "15")] seccomp: Option<Profile>,
    }
    Profile {
        #[prost(int32, tag = "1")] kind: i32,
    }
    LinuxContainer {
        #[prost(message, optional, tag = "2")] security: Option<ContainerSecurity>,
    }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<Image>,
        #[prost(string, repeated, tag = "4")] args: Vec<String>,
        #[prost(message, repeated, tag = "7")] mounts: Vec<Mount>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainer>,
    }
    CreateContainer {
        #[prost(string, tag = "1")] pod: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] pod_config: Option<PodConfig>,
    }
    ContainerStatus {
        #[prost(int32, tag = "3")] state: i32,
        #[prost(int32, tag = "7")] exit_code: i32,
    }
    ContainerStatusAnswer {
        #[prost(message, optional, tag = "1")] status: Option<ContainerStatus>,
    }
    Nothing {}
}

/// `NODE` of `NamespaceMode`.
pub(crate) const NODE: i32 = 2;
/// `CONTAINER_EXITED` of `ContainerState`.
const EXITED: i32 = 2;

/// A connection to a container runtime.
pub(crate) struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let socket = socket.to_owned();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let channel =
            runtime.block_on(Endpoint::from_static("http://localhost").connect_with_connector(connect))?;
        Ok(Self { runtime, channel })
    }

    fn ask<Q, A>(&self, method: &'static str, request: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let asked = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await?;
            let path = PathAndQuery::from_static(method);
            let answer =
                grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
            anyhow::Ok(answer.into_inner())
        };
        self.runtime.block_on(asked).with_context(|| method.to_owned())
    }

    /// Starts a pod; yields its id.
    pub(crate) fn run_pod(&self, config: &PodConfig) -> Result<String> {
        let request = RunPod { config: Some(config.clone()) };
        Ok(self.ask::<_, Id>("/runtime.v1.RuntimeService/RunPodSandbox", request)?.id)
    }

    /// A pod's address.
    pub(crate) fn address(&self, pod: &str) -> Result<String> {
        let request = Id { id: pod.to_owned() };
        let answer: PodStatusAnswer = self.ask("/runtime.v1.RuntimeService/PodSandboxStatus", request)?;
        Ok(answer.status.and_then(|status| status.network).context("a pod without network")?.ip)
    }

    /// Creates and starts a container; yields its id.
    pub(crate) fn start(&self, pod: &str, pod_config: &PodConfig, config: ContainerConfig) -> Result<String> {
        let request = CreateContainer {
            pod: pod.to_owned(),
            config: Some(config),
            pod_config: Some(pod_config.clone()),
        };
        let id = self.ask::<_, Id>("/runtime.v1.RuntimeService/CreateContainer", request)?.id;
        self.ask::<_, Nothing>("/runtime.v1.RuntimeService/StartContainer", Id { id: id.clone() })?;
        Ok(id)
    }

    /// How a container ended; none while it runs.
    pub(crate) fn ended(&self, container: &str) -> Result<Option<i32>> {
        let request = Id { id: container.to_owned() };
        let answer: ContainerStatusAnswer =
            self.ask("/runtime.v1.RuntimeService/ContainerStatus", request)?;
        let status = answer.status.context("a container without status")?;
        Ok((status.state == EXITED).then_some(status.exit_code))
    }

    /// Stops a pod and removes what is left of it.
    pub(crate) fn remove(&self, pod: &str) -> Result<()> {
        for method in
            ["/runtime.v1.RuntimeService/StopPodSandbox", "/runtime.v1.RuntimeService/RemovePodSandbox"]
        {
            self.ask::<_, Nothing>(method, Id { id: pod.to_owned() })?;
        }
        Ok(())
    }
}
