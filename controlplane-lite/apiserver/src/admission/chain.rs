//! The plugins in effect, in upstream's order (`AllOrderedPlugins` in `pkg/kubeapiserver/options/plugins.go`), and how
//! both phases go through them.

use std::time::Instant;

use super::*;
use crate::metrics::admission::{Metrics, Timing};

/// A plugin with the phases that it takes part in.
#[derive(Clone)]
pub struct Plugin {
    name: &'static str,
    mutating: Option<Arc<dyn Mutating>>,
    validating: Option<Arc<dyn Validating>>,
    connects: bool,
}

impl Plugin {
    /// One that mutates.
    pub fn mutating(name: &'static str, mutating: impl Mutating + 'static) -> Self {
        Self { name, mutating: Some(Arc::new(mutating)), validating: None, connects: false }
    }

    /// One that validates.
    pub fn validating(name: &'static str, validating: impl Validating + 'static) -> Self {
        Self { name, mutating: None, validating: Some(Arc::new(validating)), connects: false }
    }

    /// The same plugin, which validates, too.
    #[must_use]
    pub fn and(self, validating: impl Validating + 'static) -> Self {
        Self { validating: Some(Arc::new(validating)), ..self }
    }

    /// The same plugin, which is asked about connections, too. Others would have nothing to say of them.
    #[must_use]
    pub fn of_connections(self) -> Self {
        Self { connects: true, ..self }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Upstream's plugins that there are, each in its place.
fn builtin() -> Vec<Plugin> {
    vec![
        Plugin::mutating("AlwaysAdmit", optional::admit),
        Plugin::mutating("NamespaceLifecycle", namespace_lifecycle::NamespaceLifecycle),
        Plugin::validating("NamespaceExists", optional::namespace_exists),
        Plugin::validating("LimitPodHardAntiAffinityTopology", optional::anti_affinity),
        Plugin::mutating("LimitRanger", limit_ranger::mutate).and(limit_ranger::validate),
        Plugin::mutating("ServiceAccount", service_account::ServiceAccount).and(service_account::ServiceAccount),
        Plugin::mutating("NodeRestriction", node_restriction::mutate),
        Plugin::mutating("TaintNodesByCondition", nodes::mutate),
        Plugin::mutating("AlwaysPullImages", optional::pull).and(optional::pulled),
        Plugin::validating("PodSecurity", pod_security::validate),
        Plugin::mutating("PodNodeSelector", optional::select_node).and(optional::selected_node),
        Plugin::mutating("Priority", priority::mutate).and(priority::validate),
        Plugin::mutating("DefaultTolerationSeconds", tolerations::mutate),
        Plugin::mutating("ExtendedResourceToleration", optional::tolerate_extended),
        Plugin::mutating("DefaultStorageClass", default_classes::storage),
        Plugin::mutating("StorageObjectInUseProtection", storage::protect),
        Plugin::validating("PersistentVolumeClaimResize", storage::resize),
        Plugin::mutating("RuntimeClass", runtime_class::mutate).and(runtime_class::validate),
        Plugin::validating("CertificateApproval", certificates::approval),
        Plugin::validating("CertificateSigning", certificates::signing),
        Plugin::validating("CertificateSubjectRestriction", certificates::subject),
        Plugin::mutating("DefaultIngressClass", default_classes::ingress),
        Plugin::validating("DenyServiceExternalIPs", optional::external_ips),
        Plugin::mutating("PodTopologyLabels", on_nodes::label),
        Plugin::validating("PodResizeValidator", on_nodes::resize),
        Plugin::validating("AdminAccess", admin_access::validate),
        Plugin::validating("Unbuilt", unbuilt::validate),
    ]
}

/// What counts has to know that nobody else will refuse: it comes after the webhooks.
fn last() -> Vec<Plugin> {
    vec![
        Plugin::validating("ResourceQuota", resource_quota::ResourceQuota::default()),
        Plugin::mutating("AlwaysDeny", optional::deny).and(optional::deny_validated).of_connections(),
    ]
}

/// Plugins that are off unless they are asked for (`DefaultOffAdmissionPlugins`). NodeRestriction is not one of them
/// here: kubelets have the rights of their nodes alone, and it is what bounds these.
const OFF: [&str; 8] = [
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "DenyServiceExternalIPs",
    "ExtendedResourceToleration",
    "LimitPodHardAntiAffinityTopology",
    "NamespaceExists",
    "PodNodeSelector",
];
/// Upstream's plugins that are not here, as there is nothing that they could do here, or nobody has asked for them.
const ABSENT: [&str; 10] = [
    "ClusterTrustBundleAttest",
    "EventRateLimit",
    "ImagePolicyWebhook",
    "JobValidation",
    "NamespaceAutoProvision",
    "NodeDeclaredFeatureValidator",
    "OwnerReferencesPermissionEnforcement",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodTolerationRestriction",
];
/// Those that are no plugins of upstream's, and cannot be chosen.
const OWN: [&str; 2] = ["AdminAccess", "Unbuilt"];
/// Those whose place is that of [`Chain::new`]'s `more`.
const POLICIES: [&str; 4] =
    ["MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"];

/// Which plugins are on beside those that are on by default, and which are not (`--enable-admission-plugins`,
/// `--disable-admission-plugins`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// On.
    pub enable: Vec<String>,
    /// Off.
    pub disable: Vec<String>,
}

impl Selection {
    /// What is wrong with it, in upstream's words (`k8s.io/apiserver/pkg/server/options/admission.go`).
    pub fn problems(&self) -> Vec<String> {
        let known: Vec<&str> = builtin().iter().chain(&last()).map(|plugin| plugin.name).collect();
        let has = |name: &str, all: &[&str]| all.contains(&name);
        let is_known = |name: &str| !has(name, &OWN) && has(name, &known) || has(name, &POLICIES);
        let mut problems = Vec::new();
        for name in &self.enable {
            if has(name, &ABSENT) {
                problems.push(format!("enable-admission-plugins plugin {name:?} is not built into copepod"));
            } else if !is_known(name) {
                problems.push(format!("enable-admission-plugins plugin {name:?} is unknown"));
            }
        }
        for name in self.disable.iter().filter(|name| !is_known(name) && !has(name, &ABSENT)) {
            problems.push(format!("disable-admission-plugins plugin {name:?} is unknown"));
        }
        let mut both: Vec<&str> =
            self.enable.iter().filter(|name| self.disable.contains(name)).map(String::as_str).collect();
        both.sort_unstable();
        both.dedup();
        if !both.is_empty() {
            let both = both.join(" ");
            problems.push(format!("[{both}] in enable-admission-plugins and disable-admission-plugins overlapped"));
        }
        problems
    }

    fn has(&self, plugin: &Plugin) -> bool {
        let listed = |list: &[String]| list.iter().any(|name| name == plugin.name);
        listed(&self.enable) || !OFF.contains(&plugin.name) && !listed(&self.disable)
    }
}

/// Policies and webhooks as upstream has them: of each phase, the policies are first.
pub(crate) fn in_order(
    policies: impl IntoIterator<Item = Plugin>,
    webhooks: impl IntoIterator<Item = Plugin>,
) -> Vec<Plugin> {
    let mut plugins: Vec<Plugin> = policies.into_iter().chain(webhooks).collect();
    // A stable sort: what mutates, then what validates.
    plugins.sort_by_key(|plugin| plugin.mutating.is_none());
    plugins
}

/// The plugins in effect.
#[derive(Debug)]
pub struct Chain {
    plugins: Vec<Plugin>,
    mutating: Vec<Asked<dyn Mutating>>,
    validating: Vec<Asked<dyn Validating>>,
}

/// One phase of a plugin.
struct Asked<P: ?Sized> {
    name: &'static str,
    plugin: Arc<P>,
    connects: bool,
    timing: Option<Timing>,
}

impl<P: ?Sized> Asked<P> {
    fn of(plugin: &Option<Arc<P>>, of: &Plugin) -> Option<Self> {
        let (name, connects) = (of.name, of.connects);
        plugin.clone().map(|plugin| Self { name, plugin, connects, timing: None })
    }

    /// Notes how long it took since `since`, which becomes now.
    fn answered(&self, request: &Request<'_>, rejected: bool, since: &mut Instant) {
        if let Some(timing) = &self.timing {
            let now = Instant::now();
            timing.answered(request.operation, rejected, now - *since);
            *since = now;
        }
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        self.connects || request.operation != Operation::Connect
    }
}

impl<P: ?Sized> std::fmt::Debug for Asked<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("connects", &self.connects).finish_non_exhaustive()
    }
}

impl Chain {
    /// The plugins that are on by default, and `more` where upstream has its policies and webhooks.
    pub fn new(more: impl IntoIterator<Item = Plugin>) -> Self {
        Self::selected(more, &Selection::default())
    }

    /// The plugins that are selected, of the built-in ones and `more`.
    pub fn selected(more: impl IntoIterator<Item = Plugin>, selection: &Selection) -> Self {
        let all = builtin().into_iter().chain(more).chain(last());
        let plugins: Vec<Plugin> = all.filter(|plugin| selection.has(plugin)).collect();
        let mutating = plugins.iter().filter_map(|p| Asked::of(&p.mutating, p)).collect();
        let validating = plugins.iter().filter_map(|p| Asked::of(&p.validating, p)).collect();
        Self { plugins, mutating, validating }
    }

    /// The same, which counts how long each plugin takes.
    #[must_use]
    pub fn timed(mut self, metrics: &Metrics) -> Self {
        for asked in &mut self.mutating {
            asked.timing = Some(metrics.of(asked.name, "admit"));
        }
        for asked in &mut self.validating {
            asked.timing = Some(metrics.of(asked.name, "validate"));
        }
        self
    }

    /// The plugins in order, with whether they mutate and whether they validate.
    pub fn plugins(&self) -> impl Iterator<Item = (&'static str, bool, bool)> {
        self.plugins.iter().map(|plugin| (plugin.name, plugin.mutating.is_some(), plugin.validating.is_some()))
    }

    /// Lets every mutating plugin change `object` (absent for deletes). What one wrote as clients write is defaulted at
    /// once, and then all look once more, as upstream's `reinvocation.go` has it.
    ///
    /// # Errors
    /// The first plugin's refusal.
    pub async fn mutate(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Value>,
        view: &dyn View,
    ) -> Result<(), Refusal> {
        if self.mutate_once(request, object.as_deref_mut(), view).await? {
            let again = Request { again: true, ..*request };
            self.mutate_once(&again, object, view).await?;
        }
        Ok(())
    }

    async fn mutate_once(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Value>,
        view: &dyn View,
    ) -> Result<bool, Refusal> {
        let (mut raw, mut since) = (false, Instant::now());
        for asked in self.mutating.iter().filter(|asked| asked.handles(request)) {
            let mutated = match asked.plugin.mutate(request, object.as_deref_mut(), view) {
                Answer::Now(mutated) => mutated,
                Answer::Later(mutated) => mutated.await,
            };
            asked.answered(request, mutated.is_err(), &mut since);
            if mutated? == Mutated::Raw {
                raw = true;
                if let Some(object) = object.as_deref_mut() {
                    request.body.default(object);
                }
            }
        }
        Ok(raw)
    }

    /// Asks every validating plugin.
    ///
    /// # Errors
    /// The first plugin's refusal.
    pub async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Refusal> {
        let mut since = Instant::now();
        for asked in self.validating.iter().filter(|asked| asked.handles(request)) {
            let judged = match asked.plugin.validate(request, object, view) {
                Answer::Now(judged) => judged,
                Answer::Later(judged) => judged.await,
            };
            asked.answered(request, judged.is_err(), &mut since);
            judged?;
        }
        Ok(())
    }
}
