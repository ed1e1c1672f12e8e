//! How authentication and authorization are put together for this server, over its own caches: the two chains, the
//! tokens it issues and reviews, and who may grant what.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Config;
use super::call::{Call, valid};
use super::registry::Registry;
use super::server::Server;
use super::status::{ApiError, Subject};
use auth::authn::bootstrap_token::BootstrapTokenAuthenticator;
use auth::authn::files::{BasicUsers, StaticTokens, UserFileError};
use auth::authn::service_account::{IssueError, Reference, ServiceAccountAuthenticator, TokenIssuer, TokenSpec};
use auth::authn::x509::CertificateAuthenticator;
use auth::authn::{ANONYMOUS_PATHS, Authenticator, Credentials, MASTERS, Union, UserInfo};
use auth::authz::abac::{AbacAuthorizer, AbacError};
use auth::authz::node::NodeAuthorizer;
use auth::authz::rbac::{Binding, PolicyRule, RbacAuthorizer, Role, escalation, referenced_rules, rules_for};
use auth::authz::{AlwaysAllow, AlwaysDeny, Attributes, Authorizer, Chain, Masters, Mode};
use auth::views::ClusterViews;
use scheme::access::{int_at, list_at, str_at};
use scheme::{FieldErrors, Path};

/// How users are known.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// CSV of tokens: `token,user,uid,"group,group"`.
    pub token_file: Option<PathBuf>,
    /// CSV of passwords; off unless a file is given.
    pub basic_file: Option<PathBuf>,
    /// Paths that need no credentials.
    pub anonymous_paths: Vec<String>,
    /// Who is asked whether a request is allowed, in this order, behind `system:masters`, who may do everything.
    pub modes: Vec<Mode>,
    /// Policies for [`Mode::Abac`], a line each.
    pub policy_file: Option<PathBuf>,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            token_file: None,
            basic_file: None,
            anonymous_paths: ANONYMOUS_PATHS.map(str::to_owned).to_vec(),
            modes: vec![Mode::Node, Mode::Rbac],
            policy_file: None,
        }
    }
}

/// Why the chains cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file of users is not usable.
    #[error(transparent)]
    Users(#[from] UserFileError),
    /// The service-account key is not usable.
    #[error(transparent)]
    Key(#[from] IssueError),
    /// The policy file is not usable.
    #[error(transparent)]
    Policy(#[from] AbacError),
    /// There is none.
    #[error("authorization by ABAC needs a policy file")]
    NoPolicy,
}

/// The two chains and what stands behind them.
#[derive(Debug)]
pub struct Chains {
    /// Who is asking.
    pub authn: Arc<dyn Authenticator>,
    /// May they.
    pub authz: Arc<dyn Authorizer>,
    /// Tokens and rules.
    pub access: Access,
}

/// Tokens and rules.
#[derive(Debug)]
pub struct Access {
    views: Arc<ClusterViews>,
    issuer: Arc<TokenIssuer>,
    modes: Vec<Mode>,
    abac: Option<Arc<AbacAuthorizer>>,
}

/// Builds the chains.
///
/// # Errors
/// When a file or key is not usable.
pub fn build(config: &Config, registry: &Registry) -> Result<Chains, AccessError> {
    let views = ClusterViews::new(registry.cache().clone());
    let url = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
    let issuer = Arc::new(TokenIssuer::new(&config.service_account_key, &url, vec![url.clone()])?);
    let mut tokens: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some(path) = &config.auth.token_file {
        tokens.push(Arc::new(StaticTokens::load(path)?));
    }
    tokens.push(Arc::new(ServiceAccountAuthenticator::new(issuer.clone(), views.clone(), Timestamp::now)));
    tokens.push(Arc::new(BootstrapTokenAuthenticator::new(views.clone(), Timestamp::now)));
    let basic: Option<Arc<dyn Authenticator>> = match &config.auth.basic_file {
        Some(path) => Some(Arc::new(BasicUsers::load(path)?)),
        None => None,
    };
    let certificates: Option<Arc<dyn Authenticator>> = Some(Arc::new(CertificateAuthenticator::new(Timestamp::now)));
    let anonymous_paths = config.auth.anonymous_paths.clone();
    let authn = Arc::new(Union { certificates, tokens, basic, anonymous_paths });
    let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Masters)];
    let (modes, mut abac) = (config.auth.modes.clone(), None);
    for mode in &modes {
        authorizers.push(match mode {
            Mode::AlwaysAllow => Arc::new(AlwaysAllow),
            Mode::AlwaysDeny => Arc::new(AlwaysDeny),
            Mode::Node => Arc::new(NodeAuthorizer::new(views.clone())),
            Mode::Rbac => Arc::new(RbacAuthorizer::new(views.clone())),
            Mode::Abac => {
                let path = config.auth.policy_file.as_ref().ok_or(AccessError::NoPolicy)?;
                abac.insert(Arc::new(AbacAuthorizer::load(path)?)).clone()
            }
        });
    }
    let access = Access { views, issuer, modes, abac };
    Ok(Chains { authn, authz: Arc::new(Chain(authorizers)), access })
}

impl Access {
    /// The public keys tokens are signed with.
    pub fn jwks(&self) -> Value {
        self.issuer.jwks()
    }

    /// What signs tokens of service accounts.
    pub fn issuer(&self) -> &Arc<TokenIssuer> {
        &self.issuer
    }

    /// The audiences of tokens that are for this API.
    pub fn audiences(&self) -> &[String] {
        self.issuer.audiences()
    }

    /// OpenID discovery; `advertised` is the server's `host:port`.
    pub fn openid_configuration(&self, advertised: &str) -> Value {
        self.issuer.openid_configuration(&format!("https://{advertised}/openid/v1/jwks"))
    }

    /// The status of a TokenReview.
    pub async fn review_token(&self, server: &Server, token: &str, audiences: &[String]) -> Value {
        let header = format!("Bearer {token}");
        let credentials = Credentials { authorization: Some(&header), ..Credentials::default() };
        let refused = |error: String| json!({"user": {}, "error": error});
        if !audiences.is_empty()
            && let Ok(Some(found)) = self.issuer.verify(token, audiences, &*self.views, Timestamp::now())
        {
            return json!({"authenticated": true, "user": found.user, "audiences": found.audiences});
        }
        match server.authn.authenticate(credentials).await {
            Ok(Some(found)) => {
                let ours = self.issuer.audiences();
                let common: Vec<&String> =
                    ours.iter().filter(|a| audiences.is_empty() || audiences.contains(a)).collect();
                if common.is_empty() {
                    return refused(format!(
                        "token audiences {ours:?} is invalid for the target audiences {audiences:?}"
                    ));
                }
                json!({"authenticated": true, "user": found.user, "audiences": common})
            }
            Ok(None) => refused("invalid bearer token".into()),
            Err(error) => refused(format!("invalid bearer token, {error}")),
        }
    }

    /// The status of a SelfSubjectRulesReview.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> Value {
        let resolved = rules_for(&*self.views.rbac(), user, namespace);
        let by_roles = self.modes.contains(&Mode::Rbac);
        let (mut resources, mut paths) = self.rules_beside_roles(user, namespace);
        let (mut length, mut complete) = (0, true);
        for rule in resolved.rules().filter(|_| by_roles) {
            length += rule_length(rule);
            if length > MAX_RULES {
                complete = false;
                break;
            }
            if !rule.resources.is_empty() {
                let mut entry = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
                if !rule.resource_names.is_empty() {
                    entry["resourceNames"] = json!(rule.resource_names);
                }
                resources.push(entry);
            }
            if !rule.non_resource_urls.is_empty() {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            }
        }
        // What a node may do beside its roles cannot be written as rules.
        let unwritten = self.modes.contains(&Mode::Node) && user.node_name().is_some();
        let failed = by_roles && !resolved.errors.is_empty();
        let incomplete = !complete || failed || unwritten;
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
        if failed {
            status["evaluationError"] = json!(resolved.errors.to_string());
        }
        status
    }
}

impl Access {
    /// What is allowed otherwise than by roles: rules about resources, and about paths.
    fn rules_beside_roles(&self, user: &UserInfo, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        if self.modes.contains(&Mode::AlwaysAllow) {
            resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        for rule in self.abac.iter().flat_map(|abac| abac.rules_for(user, namespace)) {
            let verbs = if rule.readonly { json!(["get", "list", "watch"]) } else { json!(["*"]) };
            if let Some((group, resource)) = rule.resource {
                resources.push(json!({"verbs": verbs, "apiGroups": [group], "resources": [resource]}));
            }
            if let Some(path) = rule.path {
                paths.push(json!({"verbs": verbs, "nonResourceURLs": [path]}));
            }
        }
        (resources, paths)
    }
}

/// Memory that the rules in the answer to a SelfSubjectRulesReview may take, about: a user may have any number of roles
/// of megabytes. What is beyond it is left out, and the answer says that it is not complete.
const MAX_RULES: usize = 16 * 1024 * 1024;

fn rule_length(rule: &PolicyRule) -> usize {
    const TEXT: usize = size_of::<Value>() + size_of::<String>();
    let lists =
        [&rule.verbs, &rule.api_groups, &rule.resources, &rule.resource_names, &rule.non_resource_urls].into_iter();
    lists.flatten().map(|text| text.len() + TEXT).sum::<usize>() + 10 * TEXT
}

/// Refuses roles and bindings that would grant more than their writer has, as upstream's RBAC registry does: on every
/// write but one that only lets garbage collection go on.
///
/// # Errors
/// 403 naming the rules the writer lacks.
pub fn check_escalation(call: &Call, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let kind = &call.resource.kind;
    if kind.group != "rbac.authorization.k8s.io" || call.user.in_group(MASTERS) {
        return Ok(());
    }
    if old.is_some_and(|old| only_garbage_collected(object, old)) {
        return Ok(());
    }
    let namespace = call.info.namespace.as_str();
    let bytes = object.to_string();
    let broken = |e: String| ApiError::bad_request(e);
    let may = |verb: &str, resource: &str, name: &str, namespace: &str| {
        let attributes = Attributes {
            name: name.to_owned(),
            ..Attributes::resource(call.user.clone(), verb, &kind.group, resource, namespace)
        };
        call.server.authz.authorize(&attributes).allowed()
    };
    let views = call.server.access.views.rbac();
    let name = str_at(object, &["metadata", "name"]);
    let granted: Vec<PolicyRule> = if kind.kind.ends_with("Binding") {
        let binding = Binding::from_json(bytes.as_bytes()).map_err(|e| broken(e.to_string()))?;
        let plural = if binding.role_ref.kind == "Role" { "roles" } else { "clusterroles" };
        if may("bind", plural, &binding.role_ref.name, namespace) {
            return Ok(());
        }
        let subject = Subject::new(&kind.group, plural);
        referenced_rules(&*views, &binding.role_ref, namespace)
            .map_err(|_| ApiError::not_found(subject, &binding.role_ref.name))?
            .to_vec()
    } else {
        if may("escalate", &kind.plural, name, namespace) {
            return Ok(());
        }
        Role::from_json(bytes.as_bytes()).map_err(|e| broken(e.to_string()))?.rules
    };
    let lacking = escalation(&*views, &call.user, namespace, &granted);
    if !lacking.is_empty() {
        return Err(ApiError::forbidden(call.subject(), name, &not_held(call, &lacking)));
    }
    // Through its selectors such a role gathers anything, now and later, so its writer must have everything.
    let aggregates = |role: &Value| !role["aggregationRule"].is_null();
    if (aggregates(object) || old.is_some_and(aggregates))
        && !escalation(&*views, &call.user, namespace, &full_authority()).is_empty()
    {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(ApiError::forbidden(call.subject(), name, why));
    }
    Ok(())
}

/// Whether a write changes nothing but owners and finalizers.
fn only_garbage_collected(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["finalizers", "ownerReferences", "managedFields", "selfLink", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(new) == rest(old)
}

fn full_authority() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

/// Rules named in a refusal at most.
const NAMED_RULES: usize = 50;

fn not_held(call: &Call, lacking: &[PolicyRule]) -> String {
    let mut rules: Vec<String> = lacking.iter().take(NAMED_RULES).map(print_rule).collect();
    if lacking.len() > NAMED_RULES {
        rules.push("...".to_owned());
    }
    format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        call.user.username,
        call.user.groups,
        rules.join("\n")
    )
}

fn print_rule(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ];
    let shown: Vec<String> =
        parts.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{list:?}")).collect();
    format!("{{{}}}", shown.join(", "))
}

/// Seconds a token may at least live.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// The lifetime kubelets ask for on behalf of old clients, which never read the token again: they get a year, and a
/// warning in the claims.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// What a token request is bound to.
#[derive(Default)]
struct Bound {
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
}

/// Answers a TokenRequest for a service account.
///
/// # Errors
/// 404 for the bound object, 409 when it was replaced, 400 and 422 for the request.
pub async fn issue(call: &Call, account: &Value, mut request: Value) -> Result<Value, ApiError> {
    let access = &call.server.access;
    let kind = Subject::new("authentication.k8s.io", "TokenRequest");
    let seconds = int_at(&request, &["spec", "expirationSeconds"]).unwrap_or(3600);
    let mut errors = FieldErrors::new();
    let spec = Path::new("spec");
    if seconds < MIN_SECONDS {
        errors.invalid(&spec.child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_SECONDS {
        errors.invalid(
            &spec.child("expirationSeconds"),
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
    // A token for nobody would be taken by whoever compares with a name they forgot to set.
    let of_audiences = spec.child("audiences");
    for (i, audience) in list_at(&request, &["spec", "audiences"]).iter().enumerate() {
        if audience.as_str().is_none_or(|name| name.trim().is_empty()) {
            errors.required(&of_audiences.index(i), "");
        }
    }
    valid(kind, &call.info.name, errors)?;
    let mut audiences: Vec<String> =
        list_at(&request, &["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences = access.issuer.audiences().to_vec();
    }
    let bound = bound_object(call, &request).await?;
    let extend = seconds == WARN_ONLY_SECONDS && bound.pod.is_some() && audiences == access.issuer.audiences();
    let now = call.server.now();
    let spec = TokenSpec {
        namespace: &call.info.namespace,
        account: Reference::new(&*call.info.name, str_at(account, &["metadata", "uid"])),
        audiences: &audiences,
        lifetime: SignedDuration::from_secs(if extend { EXTENDED_SECONDS } else { seconds }),
        warn_after: extend.then(|| SignedDuration::from_secs(seconds)),
        pod: bound.pod,
        secret: bound.secret,
        node: bound.node,
        id: call.server.new_uid(),
    };
    let issued = access.issuer.issue(&spec, now).map_err(ApiError::internal)?;
    let expires = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(issued.expires);
    request["metadata"] = json!({
        "name": call.info.name, "namespace": call.info.namespace, "creationTimestamp": super::deletion::timestamp(now),
    });
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({
        "token": issued.token, "expirationTimestamp": super::deletion::timestamp(expires),
    });
    Ok(request)
}

async fn bound_object(call: &Call, request: &Value) -> Result<Bound, ApiError> {
    let reference = &request["spec"]["boundObjectRef"];
    if reference.is_null() {
        return Ok(Bound::default());
    }
    let (kind, name) = (str_at(reference, &["kind"]), str_at(reference, &["name"]));
    let (plural, namespace) = match (str_at(reference, &["apiVersion"]), kind) {
        ("v1", "Pod") => ("pods", call.info.namespace.as_str()),
        ("v1", "Secret") => ("secrets", call.info.namespace.as_str()),
        ("v1", "Node") => ("nodes", ""),
        (version, _) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to {version}, Kind={kind}"
            )));
        }
    };
    let resource = call.server.registry.get("", plural).ok_or_else(ApiError::no_such_path)?;
    let object = resource.read_value(namespace, name).await?;
    let uid = str_at(&object, &["metadata", "uid"]);
    let wanted = str_at(reference, &["uid"]);
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(ApiError::conflict(Subject::new("", plural), name, &why));
    }
    let found = Some(Reference::new(name, uid));
    Ok(match plural {
        "pods" => {
            let account = str_at(&object, &["spec", "serviceAccountName"]);
            if account != call.info.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.info.name
                )));
            }
            Bound { pod: found, node: node_of(call, &object), ..Bound::default() }
        }
        "secrets" => Bound { secret: found, ..Bound::default() },
        _ => Bound { node: found, ..Bound::default() },
    })
}

/// The node a pod runs on, which its tokens name.
fn node_of(call: &Call, pod: &Value) -> Option<Reference> {
    let name = str_at(pod, &["spec", "nodeName"]);
    if name.is_empty() {
        return None;
    }
    let node = call.server.registry.get("", "nodes")?.cache().get("", name);
    Some(Reference::new(name, node.map(|n| n.uid().to_owned()).unwrap_or_default()))
}
