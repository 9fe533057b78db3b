//! What kiln and a step's init process say to each other: length, JSON.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use kiln_core::{Exceeded, ExitStatus, RunSpec, StepUsage};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::enter::Isolation;
use crate::error::RunError;
use crate::ids::IdMode;
use crate::notify::Answers;
use crate::proc::Proc;
use crate::stubs::Stubs;

/// To init, once, at its start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) spec: RunSpec,
    pub(crate) ids: IdMode,
    pub(crate) isolation: Isolation,
    /// The machine's address as the step reaches it, if it has a private network.
    pub(crate) host: Option<IpAddr>,
    /// Which /proc it shall have; the best that there is, if not given.
    pub(crate) proc: Option<Proc>,
    /// What kiln answers its system calls for.
    pub(crate) answers: Answers,
    /// Whether the step's resources are init's to watch, as no control group keeps them.
    pub(crate) watched: bool,
    /// Whether `--cpus` is kept by leaving it fewer processors.
    pub(crate) by_affinity: bool,
    /// A number that tells steps of one kiln apart.
    pub(crate) turn: usize,
    /// Rows and columns of the step's terminal at its start, if it has one and they are known.
    pub(crate) window: Option<(u16, u16)>,
}

/// Most descriptors that come with a message.
pub(crate) const MOST_DESCRIPTORS: usize = 2;

/// From init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The new terminal's other side comes with this as a descriptor.
    Terminal,
    /// Where the step's system calls arrive, and its root directory, come with this as descriptors.
    Calls,
    /// The step's process has ended; init is about to.
    Ended { status: ExitStatus, exceeded: Option<Exceeded>, usage: StepUsage, stubs: Stubs },
    /// There will be no process.
    Failed(RunError),
}

/// Writes one message.
pub(crate) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes)
}

/// Writes one message with descriptors.
pub(crate) fn hand_over(
    to: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = Vec::new();
    write(&mut bytes, message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(fds));
    // A message this short arrives whole.
    sendmsg(to, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads one message.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
