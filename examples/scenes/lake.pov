// A mountain lake in evening light: eroded slopes, a spruce wood, boulders and reeds in the foreground.
// Written for this project; no include files. One unit is about ten metres, y is up.
#version 3.7;
global_settings { assumed_gamma 1.0 max_trace_level 5 ambient_light 0 }
#default { finish { ambient 0 diffuse 0.85 } }
#declare Rnd = seed(23);
#macro R(Low, High) (Low + (High - Low) * rand(Rnd)) #end

camera { location <0.3, 2.3, -14.5> look_at <1.2, 6.0, 30> right x * image_width / image_height angle 50 }
light_source { <-300, 150, -110> rgb <1.0, 0.78, 0.52> * 2.5 parallel point_at 0 }
light_source { <100, 300, -100> rgb <0.50, 0.66, 0.95> * 0.30 shadowless }
fog { fog_type 2 distance 330 rgb <0.56, 0.62, 0.72> fog_offset 0 fog_alt 14 }
sky_sphere {
  pigment { gradient y color_map { [0.0 rgb <0.80, 0.68, 0.58>] [0.12 rgb <0.60, 0.66, 0.76>] [0.35 rgb <0.26, 0.42, 0.70>] [1 rgb <0.09, 0.20, 0.48>] } }
  pigment {
    bozo turbulence 0.9 octaves 8 omega 0.58 lambda 2.1
    color_map { [0 rgbt 1] [0.42 rgbt 1] [0.6 rgbt <1.0, 0.88, 0.78, 0.35>] [0.85 rgbt <0.80, 0.74, 0.76, 0.12>] [1 rgbt <0.62, 0.60, 0.66, 0.08>] }
    scale <0.45, 0.12, 0.45> translate <1.3, 0.35, 2.2>
  }
}

// ---- mountains: ridged noise, higher towards the back ----
#declare Noise = function { pattern { bozo noise_generator 2 } }
#declare Ridge = function (x, z) { 1 - abs(2 * Noise(x, 7.3, z) - 1) }
#declare Slopes = function (x, z) {
  0.50 * Ridge(x * 2.3, z * 2.3) * (0.35 + 0.65 * Noise(x * 1.7 + 9, 1, z * 1.7)) + 0.26 * pow(Ridge(x * 5.1 + 3, z * 5.1), 2)
  + 0.13 * pow(Ridge(x * 11, z * 11 + 5), 2) + 0.065 * Ridge(x * 23 + 1, z * 23) + 0.035 * Ridge(x * 49, z * 49) + 0.018 * Noise(x * 110, 0, z * 110)
}
#declare Rise = function (s) { s * s * (3 - 2 * s) }
#declare Width = 230; #declare Depth = 170; #declare Near = 24; #declare Peak = 74;
// x, y in [0, 1]; row 0 of the field lies at the back
#declare Land = function (x, y) {
  Rise(min(1, max(0, (1 - y) * 1.05 - 0.02 + 0.55 * abs(x - 0.47)))) * Slopes(x * 1.3 + 0.35, y + 2.1) * (0.55 + 0.45 * cos((x - 0.62) * 4.2))
  + 0.02 * Noise(x * 30, 3, y * 30) - 0.012
}
#declare Ground = height_field {
  function 900, 700 { max(0, Land(x, y)) }
  smooth water_level 0.0
  translate <-0.5, 0, 0> scale <Width, Peak, Depth> translate <0, -0.35, Near>
}
#declare Rock = pigment {
  granite turbulence 0.3
  color_map { [0 rgb <0.11, 0.10, 0.10>] [0.4 rgb <0.26, 0.24, 0.22>] [0.7 rgb <0.36, 0.32, 0.28>] [1 rgb <0.20, 0.18, 0.17>] }
  scale <14, 5, 14>
}
#declare Meadow = pigment { bozo turbulence 0.6 octaves 6 color_map { [0 rgb <0.07, 0.12, 0.03>] [0.5 rgb <0.13, 0.17, 0.04>] [1 rgb <0.24, 0.21, 0.07>] } scale 4 }
#declare Snow = pigment { rgb <0.84, 0.87, 0.93> }
#declare High = pigment {
  gradient y turbulence 0.25 octaves 6
  pigment_map { [0.0 Rock] [0.36 Rock] [0.5 Snow] [1.0 Snow] }
  scale 46
}
object {
  Ground
  texture {
    pigment {
      slope { y, 0, 1 }
      pigment_map { [0.0 Rock] [0.58 Rock] [0.68 gradient y turbulence 0.2 pigment_map { [0.0 Meadow] [0.47 Meadow] [0.55 High] [1.0 High] } scale 76 translate -y * 20] [1.0 gradient y turbulence 0.2 pigment_map { [0.0 Meadow] [0.49 Meadow] [0.56 Snow] [1.0 Snow] } scale 76 translate -y * 20] }
    }
    normal { granite 0.45 scale 5 }
  }
}

// ---- spruces: a few shapes, placed in thousands ----
#macro Spruce(Boughs, Breadth)
  union {
    cone { <0, 0, 0>, 0.035, <0, 1, 0>, 0.003 pigment { rgb <0.10, 0.07, 0.045> } }
    mesh {
      #for (K, 0, Boughs - 1)
        #local H = 0.07 + 0.92 * pow(K / Boughs, 0.9);
        #local A = K * 2.4 + R(-0.4, 0.4);
        #local Reach = 0.27 * pow(1.02 - H, 0.85) * R(0.55, 1.2) * (0.82 + 0.22 * sin(H * 75 + A * 0.2));
        #local Out = <cos(A), 0, sin(A)>;
        #local Side = <-sin(A), 0, cos(A)> * Reach * Breadth;
        #local Root = <0, H + 0.03, 0>;
        #local Mid = Root + Out * Reach * 0.55 - y * Reach * R(0.15, 0.3);
        #local Tip = Root + Out * Reach - y * Reach * R(0.25, 0.5);
        triangle { Root, Mid + Side, Mid - y * 0.02 } triangle { Root, Mid - Side, Mid - y * 0.02 }
        triangle { Mid + Side, Tip, Mid - y * 0.03 } triangle { Mid - Side, Tip, Mid - y * 0.03 }
      #end
      pigment { bozo color_map { [0 rgb <0.04, 0.085, 0.035>] [0.6 rgb <0.085, 0.15, 0.045>] [1 rgb <0.16, 0.21, 0.06>] } scale 0.06 }
      finish { diffuse 0.8, 0.25 }
    }
  }
#end
#declare Kinds = array[4]
#for (Kind, 0, 3) #declare Kinds[Kind] = Spruce(220 + 55 * Kind, 0.26) #end
#declare NearSpruce = Spruce(2600, 0.085)
#declare Up = <0, 0, 0>;
#macro Plant(X, Z, Low, High, Top)
  #local Hit = trace(Ground, <X, 200, Z>, -y, Up);
  #if (vlength(Up) > 0.1)
    #if (Hit.y > -0.05 & Hit.y < Top & Up.y > 0.60)
      object { Kinds[floor(rand(Rnd) * 3.999)] scale R(Low, High) * <R(0.85, 1.15), 1, R(0.85, 1.15)> rotate <R(-2, 2), R(0, 360), R(-2, 2)> translate Hit - y * 0.05 }
    #end
  #end
#end
#for (K, 0, 14000)
  #declare X = R(-90, 90);
  #declare Z = 26 + 95 * pow(rand(Rnd), 1.25);
  #if (Noise(X * 0.09, 2, Z * 0.09) > 0.36) Plant(X, Z, 1.5, 3.1, 13 + 7 * Noise(X * 0.05, 0, Z * 0.05)) #end
#end

// ---- lake ----
plane {
  y, 0
  texture {
    pigment { rgb <0.010, 0.026, 0.030> }
    normal {
      average normal_map {
        [1.0 bumps 0.028 scale <2.4, 1, 0.35>]
        [1.0 bumps 0.022 scale <0.8, 1, 0.12> rotate y * 6]
        [0.8 wrinkles 0.02 scale <9, 1, 2.2> rotate -y * 4]
      }
    }
    finish { diffuse 0.5 specular 0.15 roughness 0.004 reflection { 0.3, 0.95 falloff 1.5 } }
  }
  interior { ior 1.33 }
}

// ---- near shore: a bank with boulders, grass, flowers, and two tall spruces ----
#declare Bank = height_field {
  function 400, 300 {
    max(0, 0.50 + 0.28 * Noise(x * 5, 0, y * 5) + 0.10 * Noise(x * 19, 2, y * 19) + 0.02 * Noise(x * 90, 2, y * 90)
    - 0.55 * Rise(min(1, max(0, (1 - y) * 1.35 - 0.75 * pow(abs(x - 0.56) * 1.9, 2) - 0.05))))
  }
  smooth
  translate <-0.5, 0, 0> scale <17, 2.0, 7> translate <0, -0.72, -9.6>
}
object {
  Bank
  texture {
    pigment { granite color_map { [0 rgb <0.07, 0.065, 0.04>] [0.5 rgb <0.15, 0.15, 0.06>] [1 rgb <0.25, 0.21, 0.12>] } scale 1.3 }
    normal { granite 0.6 scale 0.3 }
  }
}
#macro Boulder(Size)
  #local S = rand(Rnd) * 90;
  isosurface {
    function { x * x + y * y + z * z - 1 + 0.9 * (Noise(x * 1.1 + S, y * 1.1, z * 1.1) - 0.5) + 0.28 * Noise(x * 3.4, y * 3.4 + S, z * 3.4) + 0.07 * Noise(x * 12, y * 12, z * 12 + S) }
    contained_by { sphere { 0, 1.5 } }
    max_gradient 3.7 accuracy 0.005
    texture {
      pigment { granite color_map { [0 rgb <0.12, 0.115, 0.11>] [0.5 rgb <0.32, 0.30, 0.275>] [0.8 rgb <0.42, 0.39, 0.34>] [1 rgb <0.24, 0.22, 0.20>] } scale 0.9 translate S }
      normal { granite 0.35 scale 0.35 }
    }
    texture {
      pigment { slope { y, -0.2, 1 } turbulence 0.4 color_map { [0 rgbt 1] [0.78 rgbt 1] [0.9 rgbt <0.14, 0.16, 0.04, 0.25>] [1 rgbt <0.17, 0.19, 0.05, 0.1>] } }
      normal { granite 0.5 scale 0.1 }
    }
    scale Size
  }
#end
object { Boulder(<1.0, 0.62, 0.8>) translate <2.9, 0.18, -4.1> }
object { Boulder(<0.55, 0.36, 0.5>) translate <1.4, 0.08, -4.0> }
object { Boulder(<0.36, 0.26, 0.3>) translate <0.5, 0.06, -3.2> }
object { Boulder(<0.7, 0.4, 0.6>) translate <-2.6, 0.12, -3.6> }
object { Boulder(<0.3, 0.2, 0.3>) translate <-1.1, 0.05, -3.3> }
object { Boulder(<0.8, 0.35, 0.6>) translate <4.9, 0.1, 0.6> }
#macro Blade(Root, Height, Colour)
  #local A = R(0, 2 * pi);
  #local Lean = Height * R(0.15, 0.7) * <cos(A), 0, sin(A)>;
  #local Wide = Height * R(0.025, 0.05) * <1, 0, 0.3>;
  triangle { Root - Wide, Root + Wide, Root + Lean * 0.3 + y * Height * 0.6 + Wide * 0.6 }
  triangle { Root - Wide, Root + Lean * 0.3 + y * Height * 0.6 - Wide * 0.6, Root + Lean * 0.3 + y * Height * 0.6 + Wide * 0.6 }
  triangle { Root + Lean * 0.3 + y * Height * 0.6 - Wide * 0.6, Root + Lean * 0.3 + y * Height * 0.6 + Wide * 0.6, Root + Lean + y * Height * R(0.8, 1) }
#end
#macro Meadowland(Number, Colour)
  mesh {
    #for (K, 1, Number)
      #local X = R(-6.5, 6.5); #local Z = R(-8.6, -2.8);
      #local Hit = trace(Bank, <X, 9, Z>, -y, Up);
      #if (Hit.y > 0.03 & Noise(X * 1.3, 5, Z * 1.3) > 0.3) Blade(Hit, R(0.10, 0.36), Colour) #end
    #end
    pigment { bozo color_map { [0 rgb Colour * 0.6] [1 rgb Colour * 1.4] } scale 0.5 }
    finish { diffuse 0.7, 0.4 }
  }
#end
Meadowland(16000, <0.13, 0.19, 0.035>)
Meadowland(9000, <0.22, 0.22, 0.055>)
Meadowland(4000, <0.34, 0.28, 0.10>)
#for (K, 0, 420)
  #declare X = R(-6, 6); #declare Z = R(-8, -3);
  #declare Hit = trace(Bank, <X, 9, Z>, -y, Up);
  #if (Hit.y > 0.06 & Noise(X * 0.9 + 4, 1, Z * 0.9) > 0.5)
    sphere { 0, 0.035 scale <1, 0.6, 1> translate Hit + y * R(0.2, 0.38) #if (rand(Rnd) < 0.55) pigment { rgb <0.55, 0.30, 0.66> } #else pigment { rgb <0.85, 0.78, 0.62> } #end }
  #end
#end
object { NearSpruce scale <3.9, 5.6, 3.9> translate <-4.3, -0.1, -2.6> }
object { NearSpruce scale <3.0, 4.1, 3.0> rotate y * 130 translate <-5.7, -0.1, -1.4> }
object { NearSpruce scale <2.2, 3.0, 2.2> rotate y * 50 translate <-3.2, -0.1, -1.7> }
