// A brick house on a cobbled lane in late morning sun, with a climber, flower boxes and a tree.
// Written for this project; no include files. One unit is one metre, y is up.
#version 3.7;
global_settings {
  assumed_gamma 1.0
  max_trace_level 6
  radiosity { pretrace_start 0.08 pretrace_end 0.02 count 40 error_bound 0.9 recursion_limit 1 }
}
#default { finish { ambient 0 diffuse 0.75 } }
#declare Rnd = seed(7);
#macro R(Low, High) (Low + (High - Low) * rand(Rnd)) #end

camera { location <3.9, 1.75, -8.6> look_at <0.15, 2.5, 0> right x * image_width / image_height angle 52 }
light_source { <60, 75, -55> rgb <1.0, 0.90, 0.74> * 2.1 area_light <3, 0, 0>, <0, 3, 0>, 3, 3 adaptive 0 jitter }
sky_sphere {
  pigment { gradient y color_map { [0.0 rgb <0.62, 0.72, 0.84>] [0.5 rgb <0.17, 0.34, 0.66>] [1 rgb <0.10, 0.22, 0.52>] } }
  pigment {
    wrinkles turbulence 0.6 octaves 7 omega 0.55
    color_map { [0 rgbt 1] [0.42 rgbt <1, 1, 1, 1>] [0.7 rgbt <0.95, 0.95, 0.97, 0.25>] [1 rgbt <0.8, 0.82, 0.86, 0.1>] }
    scale <0.5, 0.16, 0.5> translate 3
  }
}

// ---- materials ----
#declare Mortar = pigment { granite color_map { [0 rgb <0.36, 0.33, 0.28>] [1 rgb <0.55, 0.52, 0.45>] } scale 0.2 }
#declare Limestone = texture {
  pigment { granite color_map { [0 rgb <0.44, 0.41, 0.35>] [0.5 rgb <0.60, 0.57, 0.49>] [1 rgb <0.68, 0.65, 0.57>] } scale 0.7 }
  normal { granite 0.2 scale 0.4 }
}
#declare Paint = texture {
  pigment { bozo turbulence 1 color_map { [0 rgb <0.72, 0.72, 0.68>] [1 rgb <0.80, 0.80, 0.77>] } scale 0.3 }
  finish { specular 0.2 roughness 0.03 }
}
#macro Painted(Colour)
  texture {
    pigment { bozo turbulence 1 octaves 5 color_map { [0 rgb Colour * 0.75] [1 rgb Colour * 1.15] } scale <0.06, 0.5, 0.06> }
    normal { granite 0.06 scale <0.03, 0.6, 0.03> }
    finish { specular 0.2 roughness 0.04 }
  }
#end
#declare Iron = texture { pigment { rgb 0.02 } normal { bumps 0.2 scale 0.02 } finish { specular 0.4 roughness 0.03 } }
#declare Pane = texture {
  pigment { bozo color_map { [0 rgb <0.012, 0.016, 0.02>] [1 rgb <0.03, 0.035, 0.04>] } scale 0.6 }
  normal { bumps 0.015 scale 0.5 }
  finish { diffuse 0.5 specular 0.6 roughness 0.005 reflection { 0.15, 0.6 } }
}

// ---- walls: single bricks, each with its own colour, set in mortar ----
#declare Openings = array[5][4] {
  { -2.9, -1.7, 1.0, 2.5 }, { -0.55, 0.65, 0.0, 2.45 }, { 1.6, 2.8, 1.0, 2.5 }, { -2.9, -1.7, 3.65, 5.05 }, { 1.6, 2.8, 3.65, 5.05 }
}
#macro Brick(From, To)
  #local Tone = R(0.68, 1.12);
  #local Hue = rand(Rnd);
  superellipsoid {
    <0.06, 0.06> scale (To - From) / 2 translate (From + To) / 2 + <0, 0, R(-0.006, 0.006)>
    pigment {
      granite
      color_map {
        [0 rgb <0.22 + 0.05 * Hue, 0.075 + 0.05 * Hue, 0.045 + 0.02 * Hue> * Tone]
        [0.5 rgb <0.40 + 0.08 * Hue, 0.125 + 0.10 * Hue, 0.07 + 0.05 * Hue> * Tone] [1 rgb <0.52, 0.24, 0.15> * Tone]
      }
      scale 0.25 translate rand(Rnd) * 50
    }
    normal { granite 0.35 scale 0.12 translate rand(Rnd) * 50 }
  }
#end
#macro Blocked(X0, X1, Y0, Y1)
  #local Hit = 0;
  #for (K, 0, 4)
    #if (X1 > Openings[K][0] & X0 < Openings[K][1] & Y1 > Openings[K][2] & Y0 < Openings[K][3] + 0.24) #local Hit = 1; #end
  #end
  Hit
#end
#declare Course = 0.083;
#for (Row, 4, 71)
  #for (I, -19, 18)
    #declare X0 = I * 0.235 + 0.1175 * mod(Row, 2);
    #declare Y0 = Row * Course;
    #if (!Blocked(X0 + 0.01, X0 + 0.22, Y0 + 0.01, Y0 + 0.06)) Brick(<X0, Y0, -0.05>, <X0 + 0.223, Y0 + 0.071, 0.1>) #end
  #end
#end
difference {
  box { <-4.45, 0, -0.035>, <4.36, 5.92, 0.4> }
  #for (K, 0, 4) box { <Openings[K][0], Openings[K][2], -1>, <Openings[K][1], Openings[K][3], 1> } #end
  pigment { Mortar } normal { granite 0.3 scale 0.1 }
}
// base of rough stones
#for (I, 0, 13)
  superellipsoid { <0.18, 0.12> scale <R(0.30, 0.325), 0.165, 0.13> translate <-4.2 + I * 0.65, 0.165, 0> texture { Limestone translate rand(Rnd) * 20 } }
#end
// flat arches of standing bricks over the openings
#for (K, 0, 4)
  #for (J, 0, 16)
    #declare X0 = Openings[K][0] - 0.06 + J * 0.0785;
    Brick(<X0, Openings[K][3], -0.065>, <X0 + 0.068, Openings[K][3] + 0.235, 0.1>)
  #end
#end

// ---- windows, shutters, flower boxes ----
#macro LeafMesh(Number, Size, Flat)
  mesh {
    #for (K, 1, Number)
      #local Centre = vnormalize(<R(-1, 1), R(-1, 1), R(-1, 1)>) * pow(rand(Rnd), 0.4) * <1, 1, Flat>;
      #local U = vnormalize(<R(-1, 1), R(-1, 0.3), R(-1, 1) * 0.6>) * Size;
      #local V = vnormalize(vcross(U, <R(-1, 1), R(-1, 1), R(-1, 1)>)) * Size * 0.42;
      #local N = vnormalize(vcross(U, V)) * Size * 0.12;
      triangle { Centre - U, Centre + V + N, Centre + U }
      triangle { Centre - U, Centre - V + N, Centre + U }
    #end
  }
#end
#macro Foliage(Colour)
  texture {
    pigment { bozo color_map { [0 rgb Colour * 0.45] [0.5 rgb Colour] [1 rgb Colour * <1.6, 1.45, 1.1>] } scale 0.05 }
    finish { diffuse 0.75, 0.35 specular 0.12 roughness 0.04 }
  }
#end
#declare Tuft = LeafMesh(70, 0.34, 1)
#declare Shutter = union {
  box { <0, 0, 0>, <0.08, 1, 0.05> } box { <0.52, 0, 0>, <0.6, 1, 0.05> }
  box { <0, 0, 0>, <0.6, 0.06, 0.05> } box { <0, 0.94, 0>, <0.6, 1, 0.05> } box { <0, 0.47, 0>, <0.6, 0.53, 0.05> }
  #for (J, 0, 21) box { <0.07, -0.016, -0.004>, <0.53, 0.016, 0.004> rotate x * 40 translate <0, 0.08 + J * 0.0405, 0.025> } #end
  box { <0.05, 0.02, 0.045>, <0.55, 0.98, 0.055> }
}
#macro Window(K, Boxed)
  #local W = Openings[K][1] - Openings[K][0];
  #local H = Openings[K][3] - Openings[K][2];
  union {
    box { <0, 0, 0.16>, <W, H, 0.17> texture { Pane } }
    box { <0.1, 0.25, 0.25>, <0.36, H, 0.26> pigment { rgb <0.6, 0.58, 0.52> } normal { gradient x 2 scale 0.08 sine_wave } }
    union {
      #for (S, 0, 1)
        box { <S * (W - 0.07), 0, 0.08>, <S * (W - 0.07) + 0.07, H, 0.2> } box { <0, S * (H - 0.07), 0.08>, <W, S * (H - 0.07) + 0.07, 0.2> }
      #end
      box { <W / 2 - 0.045, 0, 0.1>, <W / 2 + 0.045, H, 0.19> }
      #for (J, 1, 3) box { <0, J * H / 4 - 0.016, 0.12>, <W, J * H / 4 + 0.016, 0.18> } #end
      #for (J, 0, 1) box { <(0.25 + J * 0.5) * W - 0.014, 0, 0.12>, <(0.25 + J * 0.5) * W + 0.014, H, 0.18> } #end
      texture { Paint }
    }
    superellipsoid { <0.1, 0.1> scale <W / 2 + 0.1, 0.05, 0.14> translate <W / 2, -0.05, 0> texture { Limestone } }
    object { Shutter scale <1, H, 1> translate <-0.66, 0, -0.12> Painted(<0.06, 0.20, 0.20>) }
    object { Shutter scale <1, H, 1> translate <W + 0.06, 0, -0.12> Painted(<0.06, 0.20, 0.20>) }
    #if (Boxed)
      box { <0, -0.02, -0.34>, <W, 0.2, -0.1> Painted(<0.26, 0.11, 0.05>) }
      #for (J, 0, 24)
        object { Tuft scale R(0.09, 0.16) rotate 360 * rand(Rnd) * y translate <R(0.03, W - 0.03), R(0.18, 0.34), R(-0.34, -0.14)> Foliage(<0.08, 0.19, 0.035>) }
      #end
      #for (J, 0, 13)
        object { Tuft scale R(0.07, 0.12) rotate 360 * rand(Rnd) * y translate <R(0.02, W - 0.02), R(0.0, 0.2), R(-0.42, -0.36)> Foliage(<0.09, 0.21, 0.04>) }
      #end
      #for (J, 0, 90)
        sphere {
          0, 1 scale R(0.018, 0.034) * <1, 0.8, 1> translate <R(0, W), R(0.08, 0.48), R(-0.46, -0.2)>
          #if (rand(Rnd) < 0.6) pigment { rgb <0.62, 0.03, 0.05> } #else pigment { rgb <0.80, 0.50, 0.56> } #end
        }
      #end
    #end
    translate <Openings[K][0], Openings[K][2], 0>
  }
#end
Window(0, 1) Window(2, 1) Window(3, 1) Window(4, 0)

// ---- door, steps, lamp, house number ----
union {
  box { <-0.55, 0, 0.14>, <0.65, 2.45, 0.2> }
  #for (S, 0, 1) #for (J, 0, 2)
    difference {
      superellipsoid { <0.1, 0.1> scale <0.21, 0.27, 0.05> translate <-0.22 + S * 0.54, 0.42 + J * 0.62, 0.14> }
      superellipsoid { <0.1, 0.1> scale <0.15, 0.21, 0.05> translate <-0.22 + S * 0.54, 0.42 + J * 0.62, 0.06> }
    }
  #end #end
  Painted(<0.30, 0.045, 0.035>)
}
union { box { <-0.55, 0, 0>, <-0.47, 2.45, 0.2> } box { <0.57, 0, 0>, <0.65, 2.45, 0.2> } box { <-0.55, 2.37, 0>, <0.65, 2.45, 0.2> } box { <-0.5, 2.0, 0.06>, <0.6, 2.06, 0.2> } texture { Paint } }
box { <-0.47, 2.06, 0.12>, <0.57, 2.37, 0.13> texture { Pane } }
#for (J, 1, 4) box { <-0.47 + J * 0.208 - 0.012, 2.06, 0.1>, <-0.47 + J * 0.208 + 0.012, 2.37, 0.14> texture { Paint } } #end
sphere { <0.44, 1.08, 0.06>, 0.045 pigment { rgb <0.72, 0.48, 0.16> } finish { diffuse 0.4 specular 0.9 roughness 0.01 metallic reflection { 0.35 metallic } } }
box { <-0.14, 1.34, 0.08>, <0.24, 1.42, 0.1> pigment { rgb <0.72, 0.48, 0.16> } finish { diffuse 0.4 specular 0.9 roughness 0.02 metallic reflection { 0.3 metallic } } }
#for (J, 0, 2)
  superellipsoid { <0.05, 0.08> scale <0.95 + 0.18 * J, 0.07, 0.3> translate <0.05, 0.27 - 0.13 * J, -0.3 - 0.28 * J> texture { Limestone translate J * 7 } }
#end
box { <0.685, 1.72, -0.09>, <0.925, 1.92, -0.06> pigment { rgb <0.02, 0.05, 0.17> } finish { specular 0.5 roughness 0.01 } }
text { ttf "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf" "28" 0.05, 0 scale <0.165, 0.165, 0.2> translate <0.7, 1.762, -0.1> pigment { rgb 0.85 } }
union {
  cylinder { <-0.95, 2.55, -0.05>, <-0.95, 2.55, -0.42>, 0.022 }
  cylinder { <-0.95, 2.3, -0.05>, <-0.95, 2.55, -0.36>, 0.014 }
  cone { <-0.95, 2.5, -0.42>, 0.03, <-0.95, 2.38, -0.42>, 0.16 }
  #for (J, 0, 3) cylinder { <0.12, 0, 0>, <0.07, -0.32, 0>, 0.012 rotate y * (45 + 90 * J) translate <-0.95, 2.38, -0.42> } #end
  cylinder { <-0.95, 2.03, -0.42>, <-0.95, 2.07, -0.42>, 0.09 }
  texture { Iron }
}
sphere { <-0.95, 2.22, -0.42>, 0.065 pigment { rgb <0.9, 0.85, 0.7> } }

// ---- eaves, gutter, tiles, chimney ----
box { <-4.6, 5.9, -0.42>, <4.55, 6.02, 0.4> texture { Paint } }
#for (J, 0, 17) superellipsoid { <0.2, 0.2> scale <0.05, 0.09, 0.17> translate <-4.3 + J * 0.51, 5.83, -0.2> texture { Paint } } #end
difference { cylinder { <-4.7, 6.05, -0.5>, <4.65, 6.05, -0.5>, 0.085 } cylinder { <-5, 6.07, -0.5>, <5, 6.07, -0.5>, 0.075 } texture { Iron pigment { rgb <0.10, 0.11, 0.11> } } }
cylinder { <4.2, 0.2, -0.12>, <4.2, 6.0, -0.12>, 0.055 texture { Iron pigment { rgb <0.10, 0.11, 0.11> } } }
union {
  #for (Row, 0, 14) #for (I, 0, 44)
    #declare Tone = R(0.6, 1.15);
    difference {
      cylinder { <0, 0, 0>, <0, 0, 0.36>, 0.115 scale <1, 0.55, 1> }
      plane { y, 0 }
      rotate <-4 + R(-1.5, 1.5), R(-1.5, 1.5), 0> translate <-4.65 + I * 0.21, 0, Row * 0.27>
      pigment { granite color_map { [0 rgb <0.20, 0.07, 0.04> * Tone] [0.6 rgb <0.42, 0.16, 0.085> * Tone] [1 rgb <0.34, 0.27, 0.16> * Tone] } scale 0.4 translate rand(Rnd) * 30 }
    }
  #end #end
  box { <-4.7, -0.05, 0>, <4.7, 0.0, 4.2> pigment { rgb <0.16, 0.06, 0.04> } }
  rotate x * -42 translate <0, 6.08, -0.55>
}

// ---- climber on the left part of the wall ----
#declare Spray = LeafMesh(60, 0.2, 0.35)
#macro Climber(X, Y, Angle, Length)
  #local Px = X; #local Py = Y; #local Pa = Angle;
  #for (K, 1, Length)
    #local Nx = Px + 0.13 * sin(Pa); #local Ny = Py + 0.13 * cos(Pa);
    cylinder { <Px, Py, -0.075>, <Nx, Ny, -0.075>, 0.025 * (1 - 0.8 * K / Length) pigment { rgb <0.13, 0.085, 0.05> } }
    #for (J, 1, 3)
      object { Spray scale R(0.14, 0.27) rotate z * R(0, 360) translate <Nx + R(-0.17, 0.17), Ny + R(-0.15, 0.15), -0.12 - R(0, 0.08)> Foliage(<R(0.06, 0.13), R(0.15, 0.23), 0.03>) }
    #end
    #local Px = Nx; #local Py = Ny; #local Pa = Pa * 0.93 + R(-0.35, 0.35);
  #end
#end
Climber(-1.15, 0.1, -0.05, 30)
Climber(-1.2, 0.1, -0.3, 34)
Climber(-1.25, 2.5, 0.9, 13)
Climber(-1.2, 2.9, -0.7, 16)
Climber(-3.75, 0.1, 0.05, 36)
Climber(-3.8, 0.1, -0.25, 40)
Climber(-3.8, 2.7, 0.6, 16)
Climber(3.75, 0.1, 0.1, 14)

// ---- lane: cobbles, kerb, pots ----
#declare Stone = superellipsoid { <0.35, 0.35> scale <0.105, 0.06, 0.085> }
#for (Row, 0, 60) #for (I, -32, 34)
  #declare Tone = R(0.55, 1.1);
  #if (abs(I * 0.225) < 1.5 + 9 - Row * 0.02)
    object {
      Stone scale <R(0.95, 1.05), 1, R(0.92, 1.04)> rotate <R(-5, 5), R(-4, 4), R(-4, 4)>
      translate <I * 0.225 + 0.11 * mod(Row, 2) + R(-0.01, 0.01), -0.03 + R(-0.012, 0.012), -1.5 - Row * 0.182>
      pigment { granite color_map { [0 rgb <0.16, 0.15, 0.14> * Tone] [1 rgb <0.36, 0.34, 0.31> * Tone] } scale 0.3 translate rand(Rnd) * 30 }
      normal { granite 0.15 scale 0.1 }
      finish { specular 0.12 roughness 0.05 }
    }
  #end
#end #end
plane { y, -0.03 pigment { granite color_map { [0 rgb <0.10, 0.085, 0.06>] [1 rgb <0.20, 0.18, 0.13>] } scale 0.4 } normal { granite 0.5 scale 0.1 } }
#for (I, 0, 11) superellipsoid { <0.08, 0.1> scale <0.44, 0.1, 0.11> translate <-4.6 + I * 0.9, 0.0, -1.32> texture { Limestone translate I * 5 } } #end
#for (I, 0, 11) #for (J, 0, 2)
  superellipsoid { <0.05, 0.05> scale <0.29, 0.05, 0.19> translate <-4.4 + I * 0.6 + 2.2 * (I > 5), 0.01, -0.25 - J * 0.4> texture { Limestone translate rand(Rnd) * 30 } }
#end #end
#macro Pot(X, Z, Size, Colour)
  union {
    cone { <0, 0, 0>, 0.17, <0, 0.36, 0>, 0.25 } cylinder { <0, 0.34, 0>, <0, 0.42, 0>, 0.275 }
    pigment { granite color_map { [0 rgb <0.30, 0.12, 0.065>] [1 rgb <0.55, 0.28, 0.17>] } scale 0.4 } normal { granite 0.1 }
    scale Size translate <X, 0.06, Z>
  }
  #for (J, 0, 60)
    object {
      Tuft scale R(0.09, 0.17) * Size rotate 360 * rand(Rnd) * y
      translate <X, 0.06 + 0.78 * Size, Z> + Size * 0.42 * vnormalize(<R(-1, 1), R(-0.6, 1), R(-1, 1)>) * pow(rand(Rnd), 0.3) Foliage(Colour)
    }
  #end
#end
Pot(1.25, -0.75, 1.0, <0.06, 0.16, 0.03>)
Pot(-1.35, -0.8, 0.85, <0.12, 0.22, 0.05>)
Pot(3.3, -0.8, 1.15, <0.08, 0.18, 0.06>)

// ---- trees at the edges, a hedge and a far slope behind ----
#declare Crown = LeafMesh(900, 0.075, 1)
#for (K, 0, 90)
  object { Crown scale R(0.7, 1.3) rotate 360 * <rand(Rnd), rand(Rnd), rand(Rnd)> translate <R(-22, -4.5), R(0.3, 1.6), R(5, 9)> Foliage(<R(0.06, 0.11), R(0.14, 0.20), 0.035>) }
#end
sphere { 0, 1 scale <70, 14, 40> translate <-60, -4, 110> pigment { bozo turbulence 1 color_map { [0 rgb <0.16, 0.22, 0.20>] [1 rgb <0.28, 0.33, 0.26>] } scale 4 } normal { granite 0.4 scale 4 } }
#macro Branch(From, Way, Length, Thick, Depth)
  #local To = From + Way * Length;
  cone { From, Thick, To, Thick * 0.72 pigment { granite color_map { [0 rgb <0.07, 0.055, 0.04>] [1 rgb <0.22, 0.18, 0.13>] } scale 0.3 } normal { granite 0.6 scale <0.1, 0.5, 0.1> } }
  #if (Depth <= 2)
    object { Crown scale R(0.5, 0.8) rotate 360 * <rand(Rnd), rand(Rnd), rand(Rnd)> translate To Foliage(<0.09, 0.20, 0.03>) }
  #end
  #if (Depth > 0)
    #for (J, 1, 3) Branch(To, vnormalize(Way + 0.85 * <R(-1, 1), R(-0.45, 0.8), R(-1, 1)>), Length * R(0.68, 0.85), Thick * 0.66, Depth - 1) #end
  #end
#end
Branch(<6.3, 0, 1.6>, vnormalize(<-0.1, 1, -0.1>), 2.0, 0.17, 4)
Branch(<-7.2, 0, 3.5>, vnormalize(<0.1, 1, 0>), 2.2, 0.2, 4)
