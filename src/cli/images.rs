//! `images`: the unpacked images that workspaces share as their root filesystems.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;
use clap::Subcommand;
use serde::Serialize;

use crate::cli::session::Session;
use crate::cli::table;
use crate::image;
use crate::image::Entry;
use crate::image::Origin;
use crate::workspace::report::Report;
use crate::workspace::rootfs;
use crate::workspace::store::Store;

/// List the unpacked images that workspaces share, or remove some
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them
    Ls(Listing),
    /// Remove one that no workspace uses
    Rm(Which),
    /// Remove all that no workspace uses, and what killed commands have left
    Gc,
}

#[derive(Debug, Default, clap::Args)]
struct Listing {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Digest of the image, or at least its first six digits
    digest: String,
}

/// An image as it is listed.
#[derive(Debug, Serialize)]
struct Row {
    digest: String,
    chain: String,
    content_bytes: u64,
    origins: Vec<Origin>,
    users: Vec<String>,
    rootfs: PathBuf,
}

/// Runs `images`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let images = rootfs::images(store.places());
    match &args.action {
        None => list(&store, &images, "table")?,
        Some(Action::Ls(listing)) => list(&store, &images, &listing.format)?,
        Some(Action::Rm(which)) => remove(&store, &images, &which.digest)?,
        Some(Action::Gc) => collect(&store, &images, session)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store, images: &image::Store, format: &str) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for entry in images.entries()? {
        found.push(Row {
            digest: digest_of(&entry).to_owned(),
            users: rootfs::users(store, &entry)?,
            chain: entry.chain,
            content_bytes: entry.content_bytes,
            origins: entry.origins,
            rootfs: entry.rootfs,
        });
    }
    let text = match format {
        "json" => serde_json::to_string(&found)? + "\n",
        "table" => table::aligned(&rows(&found)),
        other => bail!("--format: {other:?} is not table or json"),
    };
    table::print(text.as_bytes())
}

fn rows(found: &[Row]) -> Vec<[String; 4]> {
    let heading = ["DIGEST", "BYTES", "USERS", "SOURCE"].map(str::to_owned);
    let rows = found.iter().map(|row| {
        let sources = row.origins.iter().map(|origin| origin.source.as_str());
        [
            row.digest.clone(),
            row.content_bytes.to_string(),
            match row.users.is_empty() {
                true => "-".to_owned(),
                false => row.users.join(","),
            },
            sources.collect::<Vec<_>>().join(" "),
        ]
    });
    std::iter::once(heading).chain(rows).collect()
}

fn remove(store: &Store, images: &image::Store, digest: &str) -> anyhow::Result<()> {
    let entries = images.entries()?;
    let mut meant = entries.iter().filter(|entry| entry.is_meant_by(digest));
    let (Some(one), None) = (meant.next(), meant.next()) else {
        bail!(
            "cannot remove image {digest}: it means none of those that images ls shows, or several"
        );
    };
    let removed = images.remove(&|entry| entry.chain == one.chain && unused(store, entry))?;
    if removed.is_empty() {
        let users = rootfs::users(store, one)?;
        bail!(
            "cannot remove image {digest}: it is used by {}; bring them down first",
            users.join(", ")
        );
    }
    Ok(())
}

fn collect(store: &Store, images: &image::Store, session: &Session) -> anyhow::Result<()> {
    let unwanted = |entry: &Entry| !image::Store::is_fresh(entry) && unused(store, entry);
    let removed = images
        .remove(&unwanted)
        .context("cannot remove all images that are not used")?;
    for entry in &removed {
        table::print(format!("{}\n", digest_of(entry)).as_bytes())?;
    }
    let kept = images.entries()?;
    let fresh = kept.iter().filter(|entry| unused(store, entry)).count();
    if fresh > 0 {
        let text = format!("{fresh} that were asked for within ten minutes are kept");
        session.log.warning(&text);
    }
    Ok(())
}

/// Whether nobody uses an image; when that cannot be found out, somebody may.
fn unused(store: &Store, entry: &Entry) -> bool {
    rootfs::users(store, entry).is_ok_and(|users| users.is_empty())
}

fn digest_of(entry: &Entry) -> &str {
    let first = entry.origins.first();
    first.map_or(&entry.chain, |origin| &origin.manifest)
}
