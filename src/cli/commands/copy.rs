//! The command `copy`: copies snapshots from another repository.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::from::From;
use crate::cli::progress::Kind;
use crate::cli::select::{self, Selection};
use crate::maintain::copy::{Became, copy};
use crate::repo::LockMode;
use anyhow::Result;

#[derive(clap::Args)]
#[command(mut_arg("ids", |ids| ids.help("Snapshots to copy [default: all that the filters accept]")))]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo copy --from-repo /srv/old
  vsm-mover -r /srv/repo copy --from-repo /srv/old --host server latest")]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    from: From,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let source = args.from.context(context)?;
    let from = source.open_to_read()?;
    let to = context.open_locked(LockMode::Shared)?;
    let (snapshots, missing) = args.selection.snapshots(context, &from)?;
    let _orderly = context.orderly();
    let ticker = context.show_progress(Kind::Count("packs"));
    let mut left_out = missing;
    copy(&from, &to, snapshots, &context.progress, &mut |stored, became| {
        let (verb, id) = match became {
            Became::Copied(id) => ("copied to", id),
            Became::There(id) => ("was copied before, to", id),
            Became::LeftOut => {
                left_out += 1;
                return context
                    .out
                    .warn(format_args!("error: {} was not copied: it is damaged", select::describe(stored)));
            }
        };
        // A closed standard output must not abort the copy.
        let _ = context.out.note(format_args!("{} {verb} snapshot {}", select::describe(stored), id.short()));
    })?;
    drop(ticker);
    context.note_cost()?;
    Ok(match left_out {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} snapshots were not copied, each listed above")),
    })
}
