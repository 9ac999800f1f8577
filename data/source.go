package data

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// MaxLine bounds one line of a JSONL file, in bytes.
const MaxLine = 64 << 20

// Source is one file: JSONL, or by its name .csv, .tsv or .parquet.
type Source struct {
	Name    string // what errors and example ids call it
	Open    func() (io.ReadCloser, error)
	Format  string // Auto, Text, Completion, Alpaca, Chat or the name of a DomainWording; empty = Auto
	Fields  Fields
	Wording Wording // instead of a Format, unless empty
	Task    string  // of all its examples; empty = each record's column "task"
	Weight  float64 // in the mixture; 0 = 1
	HeldOut bool    // goes to the validation side as a whole
}

// Fields names the columns of a file; empty = the usual name.
type Fields struct {
	Text, Prompt, Completion                     string
	Instruction, Input, Output, System, Messages string
	Role, Content                                string // of a message
	Difficulty                                   string // numeric column; overrides Options.Difficulty for this file
}

// numbered is a line of a file, counted from 1.
type numbered struct {
	number int
	text   []byte
}

// A block of lines is as much as is worth preparing in parallel, and little enough to hold in memory.
const (
	blockLines = 256
	blockBytes = 8 << 20
)

// eachBlock calls f with consecutive lines of a source that are not blank, a block at a time.
func eachBlock(s Source, f func([]numbered) error) error {
	var block []numbered
	bytes := 0
	err := eachRow(s, func(number int, line []byte) error {
		block, bytes = append(block, numbered{number, line}), bytes+len(line)
		if len(block) < blockLines && bytes < blockBytes {
			return nil
		}
		err := f(block)
		block, bytes = nil, 0
		return err
	})
	if err == nil && len(block) > 0 {
		err = f(block)
	}
	return err
}

// parallel runs f(0) to f(n-1) on all cores; f(i) writes only what is i's.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// eachLine calls f with the lines of a source that are not blank, counted from 1. The slice is f's to keep. Errors
// of reading name file:line.
func eachLine(s Source, f func(number int, line []byte) error) error {
	r, err := s.Open()
	if err != nil {
		return fmt.Errorf("read data %s: %w", s.Name, err)
	}
	defer r.Close()
	in := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := boundedLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read data %s:%d: %w", s.Name, n, err)
		}
		end := err != nil
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := f(n, line); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// boundedLine reads up to and including a newline; io.EOF comes with the last line.
func boundedLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > MaxLine {
			return nil, fmt.Errorf("too large: the line has more than %d MiB; is this a JSONL file?", MaxLine>>20)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

func checkText(line []byte) error {
	if line[0] == '[' {
		return fmt.Errorf("wrong format: a JSON array; JSONL has one object on each line (jq -c '.[]' makes it)")
	}
	if line[0] != '{' {
		return fmt.Errorf("wrong format: expected a JSON object, got %q", clip(line, 20))
	}
	if !utf8.Valid(line) {
		return fmt.Errorf("wrong encoding: the line is not UTF-8")
	}
	return nil
}

func clip(b []byte, n int) string {
	if len(b) <= n {
		return string(b)
	}
	return strings.ToValidUTF8(string(b[:n]), "") + "..."
}
