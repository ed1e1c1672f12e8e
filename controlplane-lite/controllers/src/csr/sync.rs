//! Does what the plan says: asks, approves, signs, removes. Dying between two
//! requests leaves a request that is approved and not signed, which is where the
//! next start goes on.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::plan::{Step, step};
use super::recognize::{self, Host, Taken};
use crate::Context;
use client::ObjectKey;
use client::objects::{name, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use pki::Request;

/// A request whose requester may not have it yet is looked at again: rights and addresses change.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Timers beyond this are set anew when they fire.
const LONGEST_TIMER: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.signing_requests.subscribe(move |change| {
        if let Some(request) = change.new {
            sink.add(ObjectKey::of(&request.metadata));
        }
    });
    // A node's addresses may come after its request.
    let (sink, requests) = (queue.clone(), ctx.informers.signing_requests.clone());
    ctx.informers.nodes.subscribe(move |change| {
        let Some(node) = change.new else { return };
        let addresses = |n: &k8s_openapi::api::core::v1::Node| n.status.as_ref().and_then(|s| s.addresses.clone());
        if change.old.is_some_and(|old| addresses(old) == addresses(node)) {
            return;
        }
        let user = format!("system:node:{}", name(&node.metadata));
        let own = |r: &Arc<CertificateSigningRequest>| r.spec.username.as_deref() == Some(&user);
        requests.list().iter().filter(|r| own(r)).for_each(|r| sink.add(ObjectKey::of(&r.metadata)));
    });
    let worker = ctx.clone();
    spawn_workers("certificatesigningrequest", &queue, 2, &ctx.runner, move |key: ObjectKey| {
        let ctx = worker.clone();
        async move { sync(&ctx, &key).await }
    });
}

async fn sync(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(request) = ctx.informers.signing_requests.get(key) else { return Ok(Next::Wait) };
    match step(&request, ctx.config.signer.is_some(), Timestamp::now()) {
        Step::Wait(time) => Ok(Next::After(time.min(LONGEST_TIMER))),
        Step::Remove => remove(ctx, &request, key).await,
        Step::AskRights(rights) => {
            for (subresource, message) in rights {
                if may_create(ctx, &request, subresource).await? {
                    return approve(ctx, &request, message).await;
                }
            }
            tracing::debug!(request = %key, "recognized, but its requester has no right to it");
            Ok(Next::After(LOOK_AGAIN))
        }
        Step::CompareNode { node, asked } if is_of_node(ctx, &asked, &node) => {
            approve(ctx, &request, "Auto approving kubelet serving certificate for the Node's own addresses.").await
        }
        Step::CompareNode { .. } => Ok(Next::After(LOOK_AGAIN)),
        Step::Sign { asked, usage, lifetime } => {
            let Some(signer) = &ctx.config.signer else { return Ok(Next::Wait) };
            match signer.sign(&asked, usage, lifetime) {
                Ok(certificate) => issue(ctx, &request, certificate).await,
                Err(error) => fail(ctx, &request, client::workqueue::chain(&error)).await,
            }
        }
        Step::Fail(why) => fail(ctx, &request, why).await,
    }
}

fn is_of_node(ctx: &Context, asked: &Request, node: &str) -> bool {
    let nodes = ctx.informers.nodes.list();
    let Some(own) = nodes.iter().find(|n| name(&n.metadata) == node) else { return false };
    let others: Vec<_> = nodes.iter().filter(|n| name(&n.metadata) != node).map(AsRef::as_ref).collect();
    let services = ctx.informers.services.list();
    // Addresses of load balancers are not among them: where nodes balance, those are the nodes' own.
    let of_services = services.iter().filter_map(|s| s.spec.as_ref());
    let of_services =
        of_services.flat_map(|s| s.cluster_ips.iter().chain(&s.external_ips).flatten().map(String::as_str));
    let api = ctx.informers.endpoints.get(&ObjectKey::new("default", "kubernetes"));
    let of_api = api.iter().flat_map(|api| api.subsets.iter().flatten());
    let of_api = of_api.flat_map(|subset| subset.addresses.iter().flatten()).map(|address| address.ip.as_str());
    let hosts = of_services.chain(of_api).chain(ctx.config.api_names.iter().map(String::as_str)).map(Host::of);
    let ranges = [ctx.config.cluster_cidr, ctx.config.service_cidr];
    let taken = Taken { others, hosts: hosts.collect(), ranges: ranges.into_iter().flatten().collect() };
    recognize::names_are_the_nodes(asked, own, &taken)
}

async fn may_create(ctx: &Context, request: &CertificateSigningRequest, part: &str) -> Result<bool, SyncError> {
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                version: Some("*".into()),
                resource: Some("certificatesigningrequests".into()),
                subresource: Some(part.to_owned()),
                verb: Some("create".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(ctx.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(SyncError::api("create SubjectAccessReview for", name(&request.metadata)))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: String,
) -> CertificateSigningRequest {
    let mut changed = request.clone();
    changed.status.get_or_insert_default().conditions.get_or_insert_default().push(
        CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            ..CertificateSigningRequestCondition::default()
        },
    );
    changed
}

async fn approve(ctx: &Context, request: &CertificateSigningRequest, message: &str) -> Result<Next, SyncError> {
    let api: Api<CertificateSigningRequest> = Api::all(ctx.client.clone());
    let changed = with_condition(request, "Approved", "AutoApproved", message.to_owned());
    let key = name(&request.metadata);
    let written = api.replace_subresource("approval", key, &PostParams::default(), &changed).await;
    tracing::info!(request = key, signer = request.spec.signer_name, "certificate signing request approved");
    after_write(ctx, written.map_err(SyncError::api("approve CertificateSigningRequest", key)))
}

async fn issue(ctx: &Context, request: &CertificateSigningRequest, certificate: String) -> Result<Next, SyncError> {
    let mut changed = request.clone();
    changed.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
    put_status(ctx, &changed, "sign CertificateSigningRequest").await
}

async fn fail(ctx: &Context, request: &CertificateSigningRequest, why: String) -> Result<Next, SyncError> {
    let changed = with_condition(request, "Failed", "SignerValidationFailure", why);
    put_status(ctx, &changed, "fail CertificateSigningRequest").await
}

async fn put_status(
    ctx: &Context,
    changed: &CertificateSigningRequest,
    operation: &'static str,
) -> Result<Next, SyncError> {
    let api: Api<CertificateSigningRequest> = Api::all(ctx.client.clone());
    let key = name(&changed.metadata);
    let written = api.replace_status(key, &PostParams::default(), changed).await;
    after_write(ctx, written.map_err(SyncError::api(operation, key)))
}

/// The written request comes back as a change; one that went meanwhile needs nothing.
fn after_write(ctx: &Context, written: Result<CertificateSigningRequest, SyncError>) -> Result<Next, SyncError> {
    match written {
        Ok(request) => {
            ctx.informers.signing_requests.written(request);
            Ok(Next::Wait)
        }
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) => Err(error),
    }
}

async fn remove(ctx: &Context, request: &CertificateSigningRequest, key: &ObjectKey) -> Result<Next, SyncError> {
    let api: Api<CertificateSigningRequest> = Api::all(ctx.client.clone());
    let preconditions = Preconditions { uid: request.metadata.uid.clone(), resource_version: None };
    match api.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
        Ok(_) => {
            ctx.informers.signing_requests.removed(key, uid(&request.metadata));
            Ok(Next::Wait)
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(Next::Wait),
        Err(error) => Err(SyncError::api("delete CertificateSigningRequest", key)(error)),
    }
}
