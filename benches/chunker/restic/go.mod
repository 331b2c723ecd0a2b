module restic-chunker

go 1.24

require github.com/restic/chunker v0.4.0
