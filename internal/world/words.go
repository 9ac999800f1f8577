package world

import "strings"

// The common words of the world. None of them is a legal word.
var (
	trades = strings.Fields("baker smith weaver miller potter tailor fisher carpenter gardener sailor shepherd " +
		"farmer singer cook hunter mason merchant barber")
	animals = strings.Fields("goats cows horses sheep ducks hens dogs pigs geese cats")
	numbers = strings.Fields("two three four five six seven eight nine ten twelve")
	goods   = strings.Fields("cart horse boat loom ladder clock lamp table chair bell coat hat rope saddle kettle " +
		"plough basket mirror drum barrel blanket axe oven anchor")
	skills = strings.Split("weave,swim,read,sing,bake bread,mend nets,ride,paint,make pots,play the drum,cut stone,"+
		"sail,dance,carve wood,keep bees,write", ",")
	jobs = strings.Split("mend the roof,feed the hens,paint the door,clean the well,carry the barley,cut the hay,"+
		"wash the wool,build a wall,repair the bridge,light the lamps,sweep the yard,bring the water", ",")
	games  = strings.Split("chess,the boat race,the long race,the singing match,the archery match,a game of cards,the wrestling match", ",")
	feels  = strings.Fields("glad tired angry proud late ill sad hungry pleased lucky quiet worried ready cold")
	spots  = strings.Split("at the market,by the river,in the old mill,near the well,under the bridge,at the inn,on the hill,in the garden,by the harbour,in the barn", ",")
	when   = strings.Split("one day,in spring,last winter,on a cold morning,after the harvest,in the summer,before noon,one evening,long ago,yesterday", ",")
	hues   = strings.Fields("red blue green white black brown grey yellow")
	kin    = strings.Fields("brother sister uncle aunt cousin son daughter mother father neighbour friend")
	skies  = strings.Split("the sun was warm,it rained all day,the wind was strong,snow lay on the roofs,the night was clear,fog hung over the fields", ",")
	ending = strings.Split("Everyone was content.,They talked about it for years.,Then it was quiet again.,That was all.,The whole town heard of it.,And so the day ended.", ",")
)
