//! What the kernel's dumps say about a table of ours. Pure; garbage becomes [`WireError`], never a panic.

use std::collections::BTreeMap;

use super::TableName;
use super::object::{BaseChain, ChainKind, Hook, Key, Name, ObservedSet, SetShape, Value, Verdict};
use super::statement::tag_of_comment;
use super::uapi::*;
use super::userdata::comment_of;
use super::wire::{Attribute, Attributes, Message, WireError};

/// The comment of the table that a `NFT_MSG_NEWTABLE` message describes.
///
/// # Errors
/// [`WireError`] when it is malformed.
pub fn table_comment(message: &Message<'_>) -> Result<Option<String>, WireError> {
    let userdata = message.attributes()?.get(NFTA_TABLE_USERDATA)?;
    Ok(userdata.and_then(|userdata| comment_of(userdata.value)).map(str::to_owned))
}

/// The chain a `NFT_MSG_NEWCHAIN` message describes; `None` when it is not in `table`.
///
/// # Errors
/// [`WireError`] when it is malformed.
pub fn chain(table: TableName, message: &Message<'_>) -> Result<Option<(Name, Option<BaseChain>)>, WireError> {
    let attributes = message.attributes()?;
    if attributes.find(NFTA_CHAIN_TABLE)?.text()? != table.as_str() {
        return Ok(None);
    }
    let name = Name::from(attributes.find(NFTA_CHAIN_NAME)?.text()?);
    let base = match attributes.get(NFTA_CHAIN_HOOK)? {
        None => None,
        Some(hook) => base_chain(&attributes, &hook)?,
    };
    Ok(Some((name, base)))
}

/// `None` for a base chain of a kind we never make: it then counts as different from any of ours.
fn base_chain(attributes: &Attributes<'_>, hook: &Attribute<'_>) -> Result<Option<BaseChain>, WireError> {
    let kind = match attributes.find(NFTA_CHAIN_TYPE)?.text()? {
        "nat" => ChainKind::Nat,
        "filter" => ChainKind::Filter,
        _ => return Ok(None),
    };
    let number = hook.nested().find(NFTA_HOOK_HOOKNUM)?.be32()?;
    let priority = hook.nested().find(NFTA_HOOK_PRIORITY)?.be32()?.cast_signed();
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    Ok(hooks.into_iter().find(|h| *h as u32 == number).map(|hook| BaseChain { kind, hook, priority }))
}

/// The chain and tag of the rule a `NFT_MSG_NEWRULE` message describes; `None` when it is not in `table`.
///
/// # Errors
/// [`WireError`] when it is malformed.
pub fn rule(table: TableName, message: &Message<'_>) -> Result<Option<(Name, u64)>, WireError> {
    let attributes = message.attributes()?;
    if attributes.find(NFTA_RULE_TABLE)?.text()? != table.as_str() {
        return Ok(None);
    }
    let chain = Name::from(attributes.find(NFTA_RULE_CHAIN)?.text()?);
    let userdata = attributes.get(NFTA_RULE_USERDATA)?;
    let tag = userdata.and_then(|u| comment_of(u.value)).map_or(0, tag_of_comment);
    Ok(Some((chain, tag)))
}

/// The set a `NFT_MSG_NEWSET` message describes, without elements; `None` when it is not in `table`.
///
/// # Errors
/// [`WireError`] when it is malformed.
pub fn set(table: TableName, message: &Message<'_>) -> Result<Option<(Name, ObservedSet)>, WireError> {
    let attributes = message.attributes()?;
    if attributes.find(NFTA_SET_TABLE)?.text()? != table.as_str() {
        return Ok(None);
    }
    let number =
        |kind: u16| -> Result<u32, WireError> { attributes.get(kind)?.map_or(Ok(0), |attribute| attribute.be32()) };
    let size = match attributes.get(NFTA_SET_DESC)? {
        Some(desc) => desc.nested().get(NFTA_SET_DESC_SIZE)?.map_or(Ok(0), |a| a.be32())?,
        None => 0,
    };
    let data_type = number(NFTA_SET_DATA_TYPE)?;
    let shape = SetShape {
        flags: number(NFTA_SET_FLAGS)?,
        key_type: number(NFTA_SET_KEY_TYPE)?,
        key_len: number(NFTA_SET_KEY_LEN)?,
        data_type,
        // Kernels tell a length for verdict maps too; it means nothing.
        data_len: if data_type == NFT_DATA_VERDICT { 0 } else { number(NFTA_SET_DATA_LEN)? },
        size,
    };
    let name = Name::from(attributes.find(NFTA_SET_NAME)?.text()?);
    Ok(Some((name, ObservedSet { shape, elements: BTreeMap::new() })))
}

/// The elements in a `NFT_MSG_NEWSETELEM` message.
///
/// # Errors
/// [`WireError`] when it is malformed.
pub fn elements(message: &Message<'_>) -> Result<Vec<(Key, Value)>, WireError> {
    let attributes = message.attributes()?;
    let Some(list) = attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS)? else { return Ok(Vec::new()) };
    list.nested().map(|element| element_of(&element?.nested())).collect()
}

fn element_of(attributes: &Attributes<'_>) -> Result<(Key, Value), WireError> {
    let key = bytes_of(&attributes.find(NFTA_SET_ELEM_KEY)?.nested().find(NFTA_DATA_VALUE)?)?;
    let value = match attributes.get(NFTA_SET_ELEM_DATA)? {
        None => Value::None,
        Some(data) => match data.nested().get(NFTA_DATA_VERDICT)? {
            Some(verdict) => Value::Verdict(verdict_of(&verdict)?),
            None => Value::Data(bytes_of(&data.nested().find(NFTA_DATA_VALUE)?)?),
        },
    };
    Ok((key, value))
}

fn bytes_of(attribute: &Attribute<'_>) -> Result<Key, WireError> {
    Key::from_bytes(attribute.value)
        .ok_or(WireError::Attribute { attribute: attribute.kind, length: attribute.value.len() })
}

fn verdict_of(attribute: &Attribute<'_>) -> Result<Verdict, WireError> {
    let code = attribute.nested().find(NFTA_VERDICT_CODE)?.be32()?.cast_signed();
    let chain = || -> Result<Name, WireError> { Ok(attribute.nested().find(NFTA_VERDICT_CHAIN)?.text()?.into()) };
    match code {
        NF_ACCEPT => Ok(Verdict::Accept),
        NF_DROP => Ok(Verdict::Drop),
        NFT_RETURN => Ok(Verdict::Return),
        NFT_JUMP => Ok(Verdict::Jump(chain()?)),
        NFT_GOTO => Ok(Verdict::Goto(chain()?)),
        _ => Err(WireError::Attribute { attribute: NFTA_VERDICT_CODE, length: 4 }),
    }
}

/// The generation in a `NFT_MSG_NEWGEN` message.
///
/// # Errors
/// [`WireError`] when it is malformed.
pub fn generation(message: &Message<'_>) -> Result<u32, WireError> {
    message.attributes()?.find(NFTA_GEN_ID)?.be32()
}
