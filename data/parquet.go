package data

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// eachGroup reads Parquet. The library may panic on a damaged file.
func eachGroup(r io.Reader, f func(int, []byte) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged Parquet file: %v", p)
		}
	}()
	at, size, err := readerAt(r)
	if err != nil {
		return err
	}
	if err := plausibleFooter(at, size); err != nil {
		return err
	}
	file, err := parquet.OpenFile(at, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return err
	}
	if err := plausible(file); err != nil {
		return fmt.Errorf("damaged Parquet file: %w", err)
	}
	in := parquet.NewGenericReader[any](file)
	defer in.Close()
	rows := make([]any, blockLines)
	for number := 1; ; {
		n, err := in.Read(rows)
		for _, row := range rows[:n] {
			text, err := plainJSON(row)
			if err == nil {
				err = f(number, text)
			}
			if err != nil {
				return err
			}
			number++
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("row %d: %w", number, err)
		}
	}
}

// What a page may say of itself. The library takes memory for what the page's header names, before it has read the page; so a file is read only
// if every page's header fits the file, and what is in the page its header: all pages are unpacked twice, which is little beside making tokens. Writers make pages of about a megabyte and of thousands of values.
const (
	maxPage       = 512 << 20
	maxPageValues = 16 << 20
	maxRatio      = 1100 // unpacked to packed; DEFLATE reaches 1032
	freePage      = 1 << 20
	maxHeader     = 1 << 20
)

// plausibleFooter holds the length of the file's index to the file: it begins and ends with the four letters, the length is before the last.
func plausibleFooter(at io.ReaderAt, size int64) error {
	var tail [8]byte
	if _, err := at.ReadAt(tail[:], size-8); err != nil || size < 12 || string(tail[4:]) != "PAR1" {
		return errors.New("not a whole Parquet file: it does not end with PAR1 (encrypted ones are not read)")
	}
	if n := int64(binary.LittleEndian.Uint32(tail[:])); n > size-12 {
		return fmt.Errorf("damaged Parquet file: its index is said to have %d bytes, more than the file", n)
	}
	return nil
}

// plausible looks at all pages.
func plausible(file *parquet.File) error {
	for g, group := range file.Metadata().RowGroups {
		for c := range group.Columns {
			m := &group.Columns[c].MetaData
			from := m.DataPageOffset
			if m.DictionaryPageOffset != 0 {
				from = m.DictionaryPageOffset
			}
			if from < 0 || m.TotalCompressedSize < 0 || m.TotalCompressedSize > file.Size()-from {
				return fmt.Errorf("column %d of row group %d is not inside the file", c, g)
			}
			column, err := columnOf(file, m)
			if err == nil {
				err = column.pages(io.NewSectionReader(file, from, m.TotalCompressedSize))
			}
			if err != nil {
				return fmt.Errorf("column %d of row group %d: %w", c, g, err)
			}
			if m.DataPageOffset > from+m.TotalCompressedSize || m.DataPageOffset < from {
				return fmt.Errorf("column %d of row group %d: its data are not where it says", c, g)
			}
		}
	}
	return nil
}

func (c column) pages(section *io.SectionReader) error {
	in := bufio.NewReaderSize(section, maxHeader)
	for {
		ahead, err := in.Peek(maxHeader)
		if len(ahead) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		var protocol thrift.CompactProtocol
		from := protocol.NewReaderFromBytes(ahead) // from bytes: a length inside the header is held to what is there
		var h format.PageHeader
		if err := thrift.NewDecoder(from).Decode(&h); err != nil {
			return fmt.Errorf("page header: %w", err)
		}
		if err := plausiblePage(&h); err != nil {
			return err
		}
		left := from.Reader().(*bytes.Reader).Len()
		in.Discard(len(ahead) - left)
		if int64(h.CompressedPageSize) > section.Size() {
			return fmt.Errorf("a page of %d bytes in a column of %d", h.CompressedPageSize, section.Size())
		}
		page := make([]byte, h.CompressedPageSize)
		if _, err := io.ReadFull(in, page); err != nil {
			return fmt.Errorf("a page of %d bytes is cut short: %w", len(page), err)
		}
		if err := c.page(&h, page); err != nil {
			return err
		}
	}
}

func plausiblePage(h *format.PageHeader) error {
	packed, unpacked := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	if packed < 0 || unpacked < 0 || unpacked > min(maxPage, freePage+maxRatio*packed) {
		return fmt.Errorf("a page names %d bytes, %d unpacked", packed, unpacked)
	}
	values := max(h.DataPageHeader.V.NumValues, h.DataPageHeaderV2.V.NumValues, h.DictionaryPageHeader.V.NumValues)
	if values < 0 || values > maxPageValues {
		return fmt.Errorf("a page names %d values", values)
	}
	return nil
}
