package state

import (
	"slices"

	"lorad/proto"
)

const (
	// remembered is how many commands with an id are known again: more than people give while one of them is tried again.
	remembered   = 256
	maxCommandID = 64
)

// Apply carries out one command, or refuses it with an *Error and changes nothing. It keeps what the command points
// to: the caller must not write to it afterwards. A command whose id was seen is not carried out again: whoever stops
// a run and loses the reply must not stop it once more when somebody else has resumed it.
func (m *Machine) Apply(c *proto.Command) (Result, error) {
	id := c.GetId()
	if len(id) > maxCommandID {
		return Result{}, refuse(Invalid, "apply", "command", "its id has %d bytes, more than %d", len(id), maxCommandID)
	}
	if i := slices.IndexFunc(m.done, func(d *proto.Done) bool { return id != "" && d.Id == id }); i >= 0 {
		return Result{Existed: m.done[i].Existed, Node: m.done[i].Node}, nil
	}
	res, err := m.carryOut(c)
	if err == nil && id != "" {
		old := m.done[max(0, len(m.done)-remembered+1):]
		m.done = append(slices.Clone(old), &proto.Done{Id: id, Existed: res.Existed, Node: res.Node})
	}
	return res, err
}
