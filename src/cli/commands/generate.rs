//! The command `generate`: writes shell completions and man pages from the definitions of the
//! options.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use anyhow::{Context as _, Result, bail};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover generate --bash-completion /etc/bash_completion.d/vsm-mover
  vsm-mover generate --zsh-completion - > _vsm-mover
  vsm-mover generate --man /usr/local/share/man/man1")]
pub struct Args {
    /// Write bash completions to this file (- for standard output)
    #[arg(long, value_name = "FILE")]
    bash_completion: Option<PathBuf>,
    /// Write fish completions to this file (- for standard output)
    #[arg(long, value_name = "FILE")]
    fish_completion: Option<PathBuf>,
    /// Write zsh completions to this file (- for standard output)
    #[arg(long, value_name = "FILE")]
    zsh_completion: Option<PathBuf>,
    /// Write PowerShell completions to this file (- for standard output)
    #[arg(long, value_name = "FILE")]
    powershell_completion: Option<PathBuf>,
    /// Write a man page for each command into this directory
    #[arg(long, value_name = "DIRECTORY")]
    man: Option<PathBuf>,
}

pub fn run(args: Args, context: &Context, mut definitions: clap::Command) -> Result<Outcome> {
    let completions = [
        (Shell::Bash, &args.bash_completion),
        (Shell::Fish, &args.fish_completion),
        (Shell::Zsh, &args.zsh_completion),
        (Shell::PowerShell, &args.powershell_completion),
    ];
    if args.man.is_none() && completions.iter().all(|(_, file)| file.is_none()) {
        bail!("nothing to generate; give --man or an option such as --bash-completion");
    }
    for (shell, file) in completions {
        let Some(file) = file else { continue };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut definitions.clone(), "vsm-mover", &mut script);
        if file == Path::new("-") {
            context.out.write(&script)?;
        } else {
            write(file, &script)?;
            context.out.note(format_args!("{shell} completions written to {}", file.display()))?;
        }
    }
    if let Some(dir) = &args.man {
        // Gives subcommands the global options, and names such as vsm-mover-key-add.
        definitions.build();
        let count = man_pages(&definitions, dir)?;
        context.out.note(format_args!("{count} man pages written to {}", dir.display()))?;
    }
    Ok(Outcome::Complete)
}

fn man_pages(definitions: &clap::Command, dir: &Path) -> Result<usize> {
    let mut count = 0;
    let mut commands = vec![definitions];
    while let Some(command) = commands.pop() {
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).render(&mut page)?;
        write(&dir.join(format!("{name}.1")), &page)?;
        count += 1;
        commands.extend(command.get_subcommands());
    }
    Ok(count)
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}
