//go:build cuda && linux

package driver

import (
	"errors"
	"runtime"
	"slices"
	"unsafe"
)

// pins are the parts of the host's memory that are locked to their pages. They are Go's: so whoever holds them may outlive the device.
type pins []*pin

type pin struct {
	host   []byte
	pinner runtime.Pinner // the driver keeps the address
}

// add locks memory for all devices of the process, in case several copy from it.
func (p *pins) add(host []byte) error {
	if len(host) == 0 || p.pinned(host) {
		return nil
	}
	added := &pin{host: host}
	added.pinner.Pin(&host[0])
	if err := lock(host); err != nil {
		added.pinner.Unpin()
		return err
	}
	*p = append(*p, added)
	return nil
}

// remove undoes add.
func (p *pins) remove(host []byte) error {
	i := slices.IndexFunc(*p, func(x *pin) bool { return len(host) > 0 && &x.host[0] == &host[0] })
	if i < 0 {
		return nil
	}
	x := (*p)[i]
	*p = slices.Delete(*p, i, i+1)
	defer x.pinner.Unpin()
	return unlock(x.host)
}

func (p *pins) close() (err error) {
	for len(*p) > 0 {
		err = errors.Join(err, p.remove((*p)[0].host))
	}
	return err
}

// pinned says whether all of it is.
func (p pins) pinned(host []byte) bool {
	return len(host) > 0 && slices.ContainsFunc(p, func(x *pin) bool {
		from := uintptr(unsafe.Pointer(&host[0]))
		at := uintptr(unsafe.Pointer(&x.host[0]))
		return from >= at && from+uintptr(len(host)) <= at+uintptr(len(x.host))
	})
}
