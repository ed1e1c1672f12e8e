//! Chains of all tables as nf_tables has them, and rules of ours in them.

use netlink_sys::Socket;

use super::plan::{Chain, Family, MarkedRule, Policy, Step};
use crate::backend::NftError;
use crate::backend::netlink::{dump, netfilter_socket, receive, send};
use crate::nft::expr::put_expressions;
use crate::nft::object::Hook;
use crate::nft::uapi::*;
use crate::nft::userdata::{self, comment_of};
use crate::nft::wire::{Message, WireError, Writer, messages};

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFTA_RULE_HANDLE: u16 = 3;

/// A socket in the calling thread's network namespace.
pub struct Filters {
    socket: Socket,
    seq: u32,
}

impl Filters {
    pub fn open() -> Result<Self, NftError> {
        Ok(Self { socket: netfilter_socket()?, seq: 1 })
    }

    /// All chains but those of our tables; rules are counted where forwarded packets are filtered.
    pub fn chains(&mut self) -> Result<Vec<Chain>, NftError> {
        let mut chains = Vec::new();
        self.list(
            NFT_MSG_GETCHAIN,
            NFPROTO_UNSPEC,
            |_| {},
            |message| {
                chains.push(read_chain(message)?);
                Ok(())
            },
        )?;
        chains.retain(|chain| chain.table != crate::nft::TABLE.as_str() && !chain.table.starts_with("copepod-"));
        for chain in chains.iter_mut().filter(|chain| chain.forward.is_some()) {
            self.read_rules(chain)?;
        }
        Ok(chains)
    }

    fn read_rules(&mut self, chain: &mut Chain) -> Result<(), NftError> {
        let (table, name) = (chain.table.clone(), chain.name.clone());
        let fill = |w: &mut Writer| {
            w.put_str(NFTA_RULE_TABLE, &table);
            w.put_str(NFTA_RULE_CHAIN, &name);
        };
        let family = number(chain.family);
        self.list(NFT_MSG_GETRULE, family, fill, |message| {
            let attributes = message.attributes()?;
            // Old kernels list more than was asked for.
            let of = |kind| attributes.find(kind).and_then(|attribute| attribute.text());
            if of(NFTA_RULE_TABLE)? != table || of(NFTA_RULE_CHAIN)? != name {
                return Ok(());
            }
            chain.rules += 1;
            let handle = u64::from_be_bytes(attributes.find(NFTA_RULE_HANDLE)?.array()?);
            let comment = attributes.get(NFTA_RULE_USERDATA)?.and_then(|userdata| comment_of(userdata.value));
            if let Some(comment) = comment.filter(|comment| crate::links::is_mark(comment)) {
                chain.marked.push(MarkedRule { handle, comment: comment.to_owned() });
            }
            Ok(())
        })
    }

    fn list(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>) -> Result<(), NftError>,
    ) -> Result<(), NftError> {
        self.seq = self.seq.wrapping_add(1);
        let mut w = Writer::with_capacity(128);
        w.begin((NFNL_SUBSYS_NFTABLES << 8) | kind, NLM_F_REQUEST | NLM_F_DUMP, self.seq, family, 0);
        fill(&mut w);
        w.end();
        match dump(&self.socket, &w.into_bytes(), self.seq, &mut each) {
            // It went meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Performs all steps or none.
    pub fn perform(&mut self, steps: &[Step]) -> Result<(), NftError> {
        if steps.is_empty() {
            return Ok(());
        }
        let mut w = Writer::with_capacity(1024);
        self.begin(&mut w, NFNL_MSG_BATCH_BEGIN, 0, 0, NFNL_SUBSYS_NFTABLES);
        w.end();
        for step in steps {
            match step {
                Step::Insert { table, chain, rule, comment } => {
                    // Without the flag that appends: before all others.
                    self.begin(&mut w, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWRULE, NLM_F_CREATE, NFPROTO_IPV4, 0);
                    w.put_str(NFTA_RULE_TABLE, table);
                    w.put_str(NFTA_RULE_CHAIN, chain);
                    put_expressions(&mut w, rule);
                    w.put(NFTA_RULE_USERDATA, &userdata::comment(comment));
                }
                Step::Delete { table, chain, handle } => {
                    self.begin(&mut w, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_DELRULE, 0, NFPROTO_IPV4, 0);
                    w.put_str(NFTA_RULE_TABLE, table);
                    w.put_str(NFTA_RULE_CHAIN, chain);
                    w.put(NFTA_RULE_HANDLE, &handle.to_be_bytes());
                }
            }
            w.add_flags(NLM_F_ACK);
            w.end();
        }
        self.begin(&mut w, NFNL_MSG_BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES);
        w.end();
        send(&self.socket, &w.into_bytes())?;
        // The kernel works off a batch inside the send: all answers are waiting now.
        let mut answered = false;
        while let Some(datagram) = receive(&self.socket, false)? {
            for message in messages(&datagram) {
                let message = message?;
                if message.kind == NLMSG_ERROR {
                    answered = true;
                    let (code, _) = message.error_code()?;
                    if code != 0 {
                        let source = std::io::Error::from_raw_os_error(code.wrapping_neg());
                        return Err(NftError::Refused { op: "rules in the chain FORWARD".to_owned(), source });
                    }
                }
            }
        }
        if answered { Ok(()) } else { Err(NftError::Unanswered) }
    }

    fn begin(&mut self, w: &mut Writer, kind: u16, flags: u16, family: u8, res_id: u16) {
        self.seq = self.seq.wrapping_add(1);
        w.begin(kind, NLM_F_REQUEST | flags, self.seq, family, res_id);
    }
}

fn number(family: Family) -> u8 {
    match family {
        Family::Ip => NFPROTO_IPV4,
        Family::Inet => NFPROTO_INET,
        Family::Other => NFPROTO_UNSPEC,
    }
}

pub(crate) fn read_chain(message: &Message<'_>) -> Result<Chain, WireError> {
    let attributes = message.attributes()?;
    let family = match message.payload.first() {
        Some(&NFPROTO_IPV4) => Family::Ip,
        Some(&NFPROTO_INET) => Family::Inet,
        _ => Family::Other,
    };
    let hook = match attributes.get(NFTA_CHAIN_HOOK)? {
        // Hooks of network devices count anew.
        Some(hook) if family != Family::Other => Some(hook.nested().find(NFTA_HOOK_HOOKNUM)?.be32()?),
        _ => None,
    };
    let filters = attributes.get(NFTA_CHAIN_TYPE)?.is_some_and(|kind| kind.text() == Ok("filter"));
    let forward = match attributes.get(NFTA_CHAIN_POLICY)? {
        Some(policy) if filters && hook == Some(Hook::Forward as u32) => {
            let drops = policy.be32()? == NF_DROP.cast_unsigned();
            Some(if drops { Policy::Drop } else { Policy::Accept })
        }
        _ => None,
    };
    Ok(Chain {
        family,
        table: attributes.find(NFTA_CHAIN_TABLE)?.text()?.to_owned(),
        name: attributes.find(NFTA_CHAIN_NAME)?.text()?.to_owned(),
        forward,
        rules: 0,
        marked: Vec::new(),
        names_pods: false,
    })
}
