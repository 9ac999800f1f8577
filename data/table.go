package data

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Tables are read as if each row were a line of JSONL: an object of its columns. Rows are numbered as lines are, from 1; a CSV file's
// first line is its header, so its rows start at 2, as an editor shows them.

// maxParquet bounds a Parquet file: its index is at its end, so it is read whole.
const maxParquet = 4 << 30

// eachRow calls f with the rows of a source as JSON objects, by what the file's name ends in.
func eachRow(s Source, f func(number int, row []byte) error) error {
	row := func(number int, row []byte) error {
		if err := f(number, row); err != nil {
			return rowError{err}
		}
		return nil
	}
	switch ext := strings.ToLower(path.Ext(s.Name)); ext {
	case ".csv", ".tsv":
		return eachTable(s, func(r io.Reader) error { return eachRecord(r, ext == ".tsv", row) })
	case ".parquet":
		return eachTable(s, func(r io.Reader) error { return eachGroup(r, row) })
	}
	return eachLine(s, f)
}

func eachTable(s Source, read func(io.Reader) error) error {
	r, err := s.Open()
	if err != nil {
		return fmt.Errorf("read data %s: %w", s.Name, err)
	}
	defer r.Close()
	err = read(r)
	if refusal := (rowError{}); errors.As(err, &refusal) {
		return refusal.error // names its row
	}
	if err != nil {
		return fmt.Errorf("read data %s: %w", s.Name, err)
	}
	return nil
}

// rowError is what became of a row, not of the file.
type rowError struct{ error }

// eachRecord reads CSV (RFC 4180). An empty cell is an absent column.
func eachRecord(r io.Reader, tabs bool, f func(int, []byte) error) error {
	bound := &perRecord{r: r}
	in := csv.NewReader(bound)
	in.ReuseRecord, in.LazyQuotes = true, false
	if tabs {
		in.Comma = '\t'
	}
	header, err := in.Read()
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	names := append([]string(nil), header...)
	names[0] = strings.TrimPrefix(names[0], "\ufeff")
	for {
		bound.read = 0
		cells, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // names the line
		}
		number, _ := in.FieldPos(0)
		row, err := objectOf(names, cells)
		if err == nil {
			err = f(number, row)
		}
		if err != nil {
			return err
		}
	}
}

func objectOf(names, cells []string) ([]byte, error) {
	row := make(map[string]string, len(names))
	for i, name := range names {
		if cells[i] != "" {
			row[name] = cells[i]
		}
	}
	return plainJSON(row)
}

// plainJSON leaves <, > and & as they are.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// perRecord fails when one record is longer than a line may be: a quote that is never closed would take the whole file.
type perRecord struct {
	r    io.Reader
	read int
}

func (p *perRecord) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.read += n; p.read > MaxLine {
		return n, fmt.Errorf("too large: a record has more than %d MiB; is a quote not closed?", MaxLine>>20)
	}
	return n, err
}

// readerAt is r itself, if it is a file, or else its bytes.
func readerAt(r io.Reader) (io.ReaderAt, int64, error) {
	if f, ok := r.(interface {
		io.ReaderAt
		io.Seeker
	}); ok {
		size, err := f.Seek(0, io.SeekEnd)
		return f, size, err
	}
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(r), maxParquet+1))
	if err == nil && len(b) > maxParquet {
		err = fmt.Errorf("too large: more than %d GiB; split it", maxParquet>>30)
	}
	return bytes.NewReader(b), int64(len(b)), err
}
