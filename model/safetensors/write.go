package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// Write writes tensors and metadata (nil: none) so that the same input always gives the same bytes, whatever the order of
// tensors. The layout is the reference implementation's: wider elements first, then by name; the header is padded with spaces
// to a multiple of 8 so that every tensor is aligned. PyTorch users expect metadata {"format": "pt"}.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sorted, err := arrange(tensors)
	if err != nil {
		return fmt.Errorf("write safetensors: %w", err)
	}
	header, err := encodeHeader(sorted, metadata)
	if err != nil {
		return fmt.Errorf("write safetensors: header: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("write safetensors: header: %w", err)
	}
	buf := make([]byte, 0, 1<<18)
	for _, t := range sorted {
		if err := writeData(w, t, buf); err != nil {
			return fmt.Errorf("write safetensors: tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// arrange checks the tensors and puts them in file order.
func arrange(tensors []Tensor) ([]Tensor, error) {
	sorted := slices.Clone(tensors)
	for i := range sorted {
		t := &sorted[i]
		t.DType = cmp.Or(t.DType, F32)
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	slices.SortFunc(sorted, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(b.DType.Size(), a.DType.Size()), cmp.Compare(a.Name, b.Name))
	})
	seen := make(map[string]bool, len(sorted))
	for _, t := range sorted {
		if seen[t.Name] {
			return nil, fmt.Errorf("tensor %q: given twice", t.Name)
		}
		seen[t.Name] = true
	}
	return sorted, nil
}

func (t *Tensor) check() error {
	n, err := elements(t.Shape)
	switch {
	case err != nil:
		return err
	case n != int64(len(t.Data)) && (t.Load == nil || t.Data != nil):
		return fmt.Errorf("shape %v takes %d elements, there are %d", t.Shape, n, len(t.Data))
	case t.DType != F32 && t.DType != BF16 && t.DType != F16:
		return fmt.Errorf("dtype %s cannot be written (supported: F32, F16, BF16)", t.DType)
	case t.Name == metadataKey:
		return fmt.Errorf("the name is reserved")
	case !utf8.ValidString(t.Name):
		return fmt.Errorf("the name is not UTF-8")
	}
	return nil
}

// encodeHeader returns the length, the JSON and its padding. JSON is put together by hand to keep the order of the tensors.
func encodeHeader(sorted []Tensor, metadata map[string]string) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 8))
	sep := byte('{')
	member := func(key string, value any) error {
		b.WriteByte(sep)
		sep = ','
		if err := writeJSON(b, key); err != nil {
			return err
		}
		b.WriteByte(':')
		return writeJSON(b, value)
	}
	if metadata != nil {
		if err := member(metadataKey, metadata); err != nil {
			return nil, err
		}
	}
	at := int64(0)
	for _, t := range sorted {
		n, err := elements(t.Shape)
		if err != nil {
			return nil, err
		}
		end := at + n*int64(t.DType.Size())
		e := entry{DType: t.DType, Shape: t.Shape, Offsets: []int64{at, end}}
		if e.Shape == nil {
			e.Shape = []int{}
		}
		if err := member(t.Name, e); err != nil {
			return nil, err
		}
		at = end
	}
	if sep == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(b.Len()-8))
	return b.Bytes(), nil
}

func writeJSON(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false) // as the reference implementation writes names
	if err := enc.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // Encode ends with a newline
	return nil
}

func writeData(w io.Writer, t Tensor, buf []byte) error {
	if t.Data == nil && t.Load != nil {
		var err error
		if t.Data, err = t.Load(); err != nil {
			return err
		}
		t.Load = nil
		if err := t.check(); err != nil {
			return err
		}
	}
	size := t.DType.Size()
	for data := t.Data; len(data) > 0; {
		n := min(len(data), cap(buf)/size)
		narrow(buf[:n*size], data[:n], t.DType)
		if _, err := w.Write(buf[:n*size]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
