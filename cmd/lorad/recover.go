package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"lorad/coordinator"
	"lorad/proto"
	"lorad/transport"
)

type recoverCmd struct {
	Confirm string `placeholder:"CODE" help:"The code that lorad recover prints without it: it stands for what was shown and nothing else."`
}

// recoveryView is what lorad recover -o json prints, and what runs show and nodes say of past recoveries.
type recoveryView struct {
	Epoch     uint64     `json:"epoch"`
	UnixMS    int64      `json:"unix_ms"`
	Node      string     `json:"node"`
	By        string     `json:"by"`
	Term      uint64     `json:"term"`
	Index     uint64     `json:"index"`
	ThrownOut []lostNode `json:"thrown_out"`
	Runs      []lostStep `json:"runs"`
	StillUp   []string   `json:"still_up,omitempty"`
	Confirm   string     `json:"confirm,omitempty"` // empty: it is done
}

type lostNode struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type lostStep struct {
	Run  string `json:"run"`
	Step uint64 `json:"step"`
}

func viewRecovery(r *proto.Recovery) recoveryView {
	v := recoveryView{
		Epoch: r.Epoch, UnixMS: r.UnixMs, Node: r.Node.Name, By: r.By, Term: r.Term, Index: r.Index,
		ThrownOut: []lostNode{}, Runs: []lostStep{},
	}
	for _, n := range r.ThrownOut {
		v.ThrownOut = append(v.ThrownOut, lostNode{n.Id, n.Name})
	}
	for _, at := range r.Runs {
		v.Runs = append(v.Runs, lostStep{at.Run, at.Step})
	}
	return v
}

// Run shows what would happen, and does it when that is confirmed.
func (c recoverCmd) Run(a *app) error {
	lock, err := transport.ListenLocal(a.dir) // nobody starts the node meanwhile
	if err != nil {
		return fmt.Errorf("recover: it is for a node that does not run (stop it with Ctrl-C or SIGTERM): %w", err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(a.ctx, readyTimeout)
	defer cancel()
	r, err := coordinator.PlanRecovery(ctx, a.dir, username(), a.log)
	if err != nil {
		return err
	}
	defer r.Close()
	v := viewRecovery(r.Record)
	v.StillUp = r.Up
	if c.Confirm == "" {
		v.Confirm = r.Code()
		return errors.Join(a.print(v, func(w io.Writer) { showPlan(w, v, r.Voters) }), unconfirmed(v.Confirm))
	}
	if c.Confirm != r.Code() {
		return usage(errors.New("recover: this is not the code of what would happen now: run `lorad recover` again and read what it says"))
	}
	if err := r.CarryOut(); err != nil {
		return err
	}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "recovered: %s is epoch %d of the cluster by itself; start it with `lorad up`, which prints a token for the others\n", v.Node, v.Epoch)
	})
}

func unconfirmed(code string) error {
	return usage(fmt.Errorf("recover: nothing was changed: confirm with `lorad recover --confirm %s`", code))
}

func showPlan(w io.Writer, v recoveryView, voters int) {
	fmt.Fprintf(w, "%s goes on alone, as epoch %d of the cluster, from log entry %d of term %d.\n\n", v.Node, v.Epoch, v.Index, v.Term)
	fmt.Fprintf(w, "Thrown out (the cluster has %d voter%s): %s.\n", voters, plural(uint32(voters)), strings.Join(lostNames(v), ", "))
	fmt.Fprintln(w, "They come back with a new token and an empty state directory only. If the majority of them is alive and merely out of reach,")
	fmt.Fprintln(w, "it goes on as well, and what the two do from now on is never merged: be sure that they are lost.")
	if len(v.StillUp) > 0 {
		fmt.Fprintf(w, "Still up, and thrown out all the same: %s.\n", strings.Join(v.StillUp, ", "))
	}
	for _, at := range v.Runs {
		fmt.Fprintf(w, "Run %s goes on from step %d; steps that were committed after it are done again, with the same result.\n", at.Run, at.Step)
	}
	fmt.Fprintf(w, "\nLost is whatever the others agreed on after log entry %d: runs submitted, stopped or finished, nodes that joined or were\nremoved. All join tokens are lost.\n", v.Index)
}

func lostNames(v recoveryView) (names []string) {
	for _, n := range v.ThrownOut {
		names = append(names, fmt.Sprintf("%s (%s)", n.Name, n.ID))
	}
	return names
}

// showRecoveries says what was done to the cluster: nobody should have to wonder why a node is not there any more.
func showRecoveries(w io.Writer, list []recoveryView) {
	for _, v := range list {
		fmt.Fprintf(w, "epoch %d: recovered on %s by %s, %s, from log entry %d of term %d; thrown out: %s\n",
			v.Epoch, v.Node, v.By, time.UnixMilli(v.UnixMS).UTC().Format(time.DateTime), v.Index, v.Term, strings.Join(lostNames(v), ", "))
	}
}

// recoveries views what the cluster says of its recoveries; of a run, those that it was caught in.
func recoveries(reply *proto.ClusterReply, run string) []recoveryView {
	list := []recoveryView{}
	for _, r := range reply.Recoveries {
		v := viewRecovery(r)
		if run == "" || caught(v, run) {
			list = append(list, v)
		}
	}
	return list
}

func caught(v recoveryView, run string) bool {
	for _, at := range v.Runs {
		if at.Run == run {
			return true
		}
	}
	return false
}

func username() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Getuid())
}
