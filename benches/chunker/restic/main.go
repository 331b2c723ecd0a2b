// Cuts a file with restic's own chunker.
//
//	restic-chunker POLYNOMIAL FILE ROUNDS
//
// The file is read into memory first. Prints the seconds of the fastest round, and the lengths of
// the chunks.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/restic/chunker"
)

func main() {
	polynomial, err := strconv.ParseUint(os.Args[1], 16, 64)
	if err != nil {
		log.Fatal(err)
	}
	data, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	rounds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	// As in restic, each chunk is copied into a buffer that is reused.
	buffer := make([]byte, chunker.MaxSize)
	var lengths []uint
	best := time.Duration(-1)
	for ; rounds > 0; rounds-- {
		lengths = lengths[:0]
		start := time.Now()
		cutter := chunker.New(bytes.NewReader(data), chunker.Pol(polynomial))
		for {
			chunk, err := cutter.Next(buffer)
			if err == io.EOF {
				break
			}
			if err != nil {
				log.Fatal(err)
			}
			lengths = append(lengths, chunk.Length)
		}
		if took := time.Since(start); best < 0 || took < best {
			best = took
		}
	}
	fmt.Println(best.Seconds())
	for _, length := range lengths {
		fmt.Println(length)
	}
}
