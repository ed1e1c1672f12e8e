//! The status of a ResourceClaim: what was allocated, for whom, and how the devices are.

use std::collections::HashSet;

use serde_json::Value;

use super::claim::Names;
use super::*;
use crate::validation::immutable;
use crate::validation::placement::node_selector;

const MOST_CONSUMERS: usize = 256;
const MOST_CONDITIONS: usize = 8;

/// A device, as one of several that share it or as the only one.
fn device_id(of: &Value) -> String {
    let part = |field: &str| str_at(of, &[field]);
    let share = match part("shareID") {
        "" => String::new(),
        share => format!("/{share}"),
    };
    format!("{}/{}/{}{share}", part("driver"), part("pool"), part("device"))
}

/// A changed status (new, old).
pub(crate) fn claim_status(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let path = Path::new("status");
    let (status, before) = (at(new, &["status"]), at(old, &["status"]));
    let allocation = at(status, &["allocation"]);
    let consumers = list_at(status, &["reservedFor"]);
    let uid = |of: &Value| str_at(of, &["uid"]).to_owned();
    set(consumers, MOST_CONSUMERS, uid, &path.child("reservedFor"), errors, &mut |each, path, errors| {
        for field in ["resource", "name", "uid"] {
            if str_at(each, &[field]).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
    });
    let allocated: HashSet<String> = list_at(allocation, &["devices", "results"]).iter().map(device_id).collect();
    let devices = list_at(status, &["devices"]);
    set(devices, usize::MAX, device_id, &path.child("devices"), errors, &mut |each, path, errors| {
        device(each, &allocated, path, errors);
    });
    if !consumers.is_empty() && allocation.is_null() {
        errors.forbidden(&path.child("reservedFor"), "may not be specified when `allocated` is not set");
    } else if !at(new, &["metadata", "deletionTimestamp"]).is_null() {
        let known = list_at(before, &["reservedFor"]);
        if consumers.iter().any(|consumer| !known.contains(consumer)) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.forbidden(&path.child("reservedFor"), detail);
        }
    }
    let path = path.child("allocation");
    match (at(before, &["allocation"]), allocation) {
        (_, Value::Null) => {}
        (Value::Null, new_allocation) => {
            results(new_allocation, &Names::of(at(new, &["spec", "devices"])), &path, errors);
        }
        (old_allocation, new_allocation) => immutable(new_allocation, old_allocation, &path, errors),
    }
}

/// What is allocated for the first time.
fn results(allocation: &Value, names: &Names<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let (devices, of) = (path.child("devices"), at(allocation, &["devices"]));
    items(list_at(of, &["results"]), MOST_REQUESTS, &devices.child("results"), errors, &mut |each, path, errors| {
        names.check(str_at(each, &["request"]), &path.child("request"), errors);
        driver(str_at(each, &["driver"]), &path.child("driver"), errors);
        pool_name(str_at(each, &["pool"]), &path.child("pool"), errors);
        dns_label(str_at(each, &["device"]), &path.child("device"), errors);
        binding_conditions(each, path, errors);
        for (place, one) in list_at(each, &["tolerations"]).iter().enumerate() {
            toleration(one, &path.child("tolerations").index(place), errors);
        }
        share(each, path, errors);
    });
    let configs = list_at(of, &["config"]);
    items(configs, 2 * MOST_CONFIGS, &devices.child("config"), errors, &mut |each, path, errors| {
        match str_at(each, &["source"]) {
            "" => errors.required(&path.child("source"), ""),
            "FromClaim" | "FromClass" => {}
            other => errors.not_supported(&path.child("source"), other, &["FromClaim", "FromClass"]),
        }
        names.check_all(each, path, errors);
        configuration(each, false, path, errors);
    });
    let selector = at(allocation, &["nodeSelector"]);
    if !selector.is_null() {
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

/// Which share of a device it is: a UUID as everybody writes it.
fn share(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(id) = at(of, &["shareID"]).as_str() else { return };
    let groups: Vec<&str> = id.split('-').collect();
    let hex = |part: &&str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let lengths = groups.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    if !lengths || !groups.iter().all(hex) {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                      hexadecimal characters";
        errors.invalid(&path.child("shareID"), id, detail);
    }
}

fn device(device: &Value, allocated: &HashSet<String>, path: &Path<'_>, errors: &mut FieldErrors) {
    driver(str_at(device, &["driver"]), &path.child("driver"), errors);
    pool_name(str_at(device, &["pool"]), &path.child("pool"), errors);
    dns_label(str_at(device, &["device"]), &path.child("device"), errors);
    share(device, path, errors);
    let id = device_id(device);
    if !allocated.contains(&id) {
        errors.invalid(path, id, "must be an allocated device in the claim");
    }
    let conditions = list_at(device, &["conditions"]);
    if conditions.len() > MOST_CONDITIONS {
        errors.too_many(&path.child("conditions"), conditions.len(), MOST_CONDITIONS);
    }
    if !at(device, &["data"]).is_null() {
        raw_object(at(device, &["data"]), false, &path.child("data"), errors);
    }
    let (network, path) = (at(device, &["networkData"]), path.child("networkData"));
    for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if str_at(network, &[field]).len() > most {
            errors.too_long(&path.child(field), most);
        }
    }
    let ips = list_at(network, &["ips"]);
    set(ips, 16, |ip| text(ip).to_owned(), &path.child("ips"), errors, &mut |ip, path, errors| {
        if !is_interface_address(text(ip)) {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned();
            errors.invalid(path, ip, detail);
        }
    });
}

/// An address with the length of its prefix, as Go prints both.
fn is_interface_address(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(ip) = address.parse::<std::net::IpAddr>() else { return false };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    ip.to_string() == address && length.parse::<u8>().is_ok_and(|n| n <= most && n.to_string() == length)
}
