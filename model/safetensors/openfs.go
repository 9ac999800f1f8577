package safetensors

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// OpenFS opens a file of fsys. Close releases it.
func OpenFS(fsys fs.FS, name string) (*File, error) {
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	f, err := openFile(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), file.Close())
	}
	f.closer = file
	return f, nil
}

func openFile(file fs.File) (*File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if r, ok := file.(io.ReaderAt); ok {
		return Open(r, info.Size())
	}
	data, err := io.ReadAll(file) // an fs.FS need not offer ReadAt; those on disk and in the binary do
	if err != nil {
		return nil, err
	}
	return Open(bytes.NewReader(data), int64(len(data)))
}

// Close closes the file that OpenFS opened; reading tensors fails after it.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}
