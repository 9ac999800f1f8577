package coordinator

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/proto"
)

// Groups of roles in the table below. The zero role is a stranger: somebody without a certificate who enrols.
var (
	stranger = []ca.Role{""}
	voters   = []ca.Role{ca.Voter, ca.Witness}
	nodes    = []ca.Role{ca.Worker, ca.Voter, ca.Witness}
	people   = []ca.Role{ca.Owner, ca.Operator}
	readers  = []ca.Role{ca.Owner, ca.Operator, ca.Viewer, ca.Worker, ca.Voter, ca.Witness}
)

// row says who may do one thing: whomever it concerns, or only where it concerns the caller itself.
type row struct{ may, own []ca.Role }

// access is who may do what: each RPC by its full name, and each command that a node may hand to the leader by its
// name in proto.Command. What is not in it is allowed to nobody; TestEveryMethodHasARow keeps it whole.
//
// A command that a person gives comes to the leader from the node that he asked, under that node's certificate. A
// worker vouches for nobody: on its machine people can submit runs and stop those, and no more.
var access = map[string]row{
	proto.Control_Cluster_FullMethodName:     {may: readers},
	proto.Control_Runs_FullMethodName:        {may: readers},
	proto.Control_GetRun_FullMethodName:      {may: readers},
	proto.Control_Follow_FullMethodName:      {may: readers},
	proto.Control_Audit_FullMethodName:       {may: people}, // costs what it takes to tokenise the data
	proto.Control_Submit_FullMethodName:      {may: people},
	proto.Control_Stop_FullMethodName:        {may: people},
	proto.Control_CreateToken_FullMethodName: {may: people}, // of which roles: grants
	proto.Control_Tokens_FullMethodName:      {may: people},
	proto.Control_RemoveToken_FullMethodName: {may: people},
	proto.Control_RemoveNode_FullMethodName:  {may: []ca.Role{ca.Owner}},
	proto.Control_Drain_FullMethodName:       {may: people},

	proto.Coordination_Apply_FullMethodName:     {may: nodes},                          // of which commands: below
	proto.Enrol_Join_FullMethodName:             {may: slices.Concat(stranger, nodes)}, // nodes pass it on to the leader
	proto.Enrol_Renew_FullMethodName:            {may: append([]ca.Role{ca.Lapsed}, nodes...)},
	proto.Coordination_Keys_FullMethodName:      {may: nodes},
	proto.Coordination_ReadIndex_FullMethodName: {may: nodes},
	proto.Peer_Ping_FullMethodName:              {may: nodes},
	proto.Peer_FetchBlob_FullMethodName:         {may: nodes},
	proto.Peer_FetchState_FullMethodName:        {may: nodes},

	"put_node":     {own: nodes},
	"remove_node":  {may: voters},
	"drain_node":   {may: voters, own: nodes},
	"put_token":    {may: voters},
	"remove_token": {may: voters},
	"submit_run":   {own: nodes}, // the home node writes where the run says, so nobody makes another node the home
	"stop_run":     {may: voters, own: nodes},
	"resume_run":   {may: voters, own: nodes},
	"report":       {own: nodes},
	// The leader's own business, never passed on: one stolen node must not be able to grant itself anything.
	"use_token":   {},
	"grant_lease": {},
	"put_cluster": {},

	"rotate_gossip_key": {},
}

// grants says which tokens a person may make. Who can let a voter in can become everything.
var grants = map[ca.Role][]string{
	ca.Owner:    {"worker", "voter", "witness", "viewer", "operator"},
	ca.Operator: {"worker", "viewer"},
}

// allowed reports whether a role may do what; own: the thing concerns the caller itself.
func allowed(role ca.Role, what string, own bool) bool {
	r := access[what]
	return slices.Contains(r.may, role) || own && slices.Contains(r.own, role)
}

// mayPropose checks a command that another node hands to the leader, and takes out of it what only the leader says.
func (c *Coordinator) mayPropose(caller ca.Peer, cmd *proto.Command) error {
	what := commandName(cmd)
	if !allowed(caller.Role, what, c.concerns(cmd) == caller.NodeID) {
		return status.Errorf(codes.PermissionDenied, "apply %s: node %s is a %s and may not propose this: ask on a node that votes", what, caller.NodeID, caller.Role)
	}
	switch do := cmd.GetDo().(type) {
	case *proto.Command_PutNode: // a node tells facts about itself; what it is was decided when it joined
		known := c.fsm.node(caller.NodeID)
		if known == nil {
			return status.Errorf(codes.PermissionDenied, "apply %s: node %s is not in the cluster: join again", what, caller.NodeID)
		}
		do.PutNode.Node.Voter, do.PutNode.Node.Witness = known.Voter, known.Witness
	case *proto.Command_PutToken:
		if do.PutToken.GetToken() != nil {
			do.PutToken.Token.MadeBy = caller.NodeID
		}
	case *proto.Command_DrainNode: // what a person has drained, a worker does not take back
		byPerson := c.fsm.node(caller.NodeID).GetDrain() != nil && c.fsm.node(caller.NodeID).Drain.Boot == ""
		if do.DrainNode.GetUndo() && byPerson && !slices.Contains(voters, caller.Role) {
			return status.Errorf(codes.PermissionDenied, "apply %s: node %s was drained by a person: undo it on a node that votes", what, caller.NodeID)
		}
	case *proto.Command_StopRun:
		if do.StopRun != nil {
			do.StopRun.Settle = false
		}
	}
	return nil
}

// commandName is the name of a command's field in proto.Command, "" if it is none.
func commandName(cmd *proto.Command) string {
	m := cmd.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("do"))
	if field == nil {
		return ""
	}
	return string(field.Name())
}

// concerns is the id of the node that a command is about: for a run, its home.
func (c *Coordinator) concerns(cmd *proto.Command) string {
	switch do := cmd.GetDo().(type) {
	case *proto.Command_PutNode:
		return do.PutNode.GetNode().GetId()
	case *proto.Command_Report:
		return do.Report.GetNode()
	case *proto.Command_DrainNode:
		return do.DrainNode.GetId()
	case *proto.Command_SubmitRun:
		return do.SubmitRun.GetSpec().GetHomeNode()
	case *proto.Command_StopRun:
		return c.Run(do.StopRun.GetRun()).HomeNode()
	case *proto.Command_ResumeRun:
		return c.Run(do.ResumeRun.GetRun()).HomeNode()
	}
	return ""
}
