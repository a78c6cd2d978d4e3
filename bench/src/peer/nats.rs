//! x.
pub(crate) fn run(_: &super::PeerOptions) -> anyhow::Result<()> {
    Ok(())
}
